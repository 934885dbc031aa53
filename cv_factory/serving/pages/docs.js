"use strict";

const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.toggle("dark-mode", isDark);
fetch("openapi.json").then((response) => response.json()).then((spec) => {
  document.title = `${spec.info.title}, version ${spec.info.version}`;
  // Beside this page, also behind a proxy that adds a prefix to the path.
  spec.servers = [{ url: new URL(".", document.baseURI).href.replace(/\/$/, "") }];
  SwaggerUIBundle({
    spec,
    dom_id: "#swagger-ui",
    presets: [SwaggerUIBundle.presets.apis],
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    tryItOutEnabled: true,
  });
});
