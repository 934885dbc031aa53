"use strict";

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function table(rows) {
  const made = make("table");
  for (const [name, text] of rows) {
    const row = made.insertRow();
    row.insertCell().append(make("code", name));
    row.insertCell().textContent = text;
  }
  return made;
}

function curl(path, method, types) {
  const url = new URL(path.slice(1), document.baseURI).href;
  if (method === "get") return [`curl ${url}`];
  const lines = {
    "application/octet-stream": `curl --data-binary @image.png -H 'Content-Type: image/png' ${url}`,
    "multipart/form-data": `curl -F images=@one.png -F images=@two.png ${url}`,
    "application/json":
      `curl -H 'Content-Type: application/json' -d '{"images": ["BASE64"]}' ${url}`,
  };
  return types.filter((type) => type in lines).map((type) => lines[type]);
}

function section(path, method, operation) {
  const made = make("section");
  const heading = make("h2");
  heading.append(make("span", method, "method"), make("code", path));
  made.append(heading, make("p", operation.summary));
  const content = operation.requestBody?.content ?? {};
  made.append(make("pre", curl(path, method, Object.keys(content)).join("\n")));
  const example = operation.responses["200"].content["application/json"]?.example;
  if (example) made.append(make("pre", JSON.stringify(example, null, 2)));
  const statuses = Object.entries(operation.responses);
  made.append(table(statuses.map(([status, response]) => [status, response.description])));
  return made;
}

fetch("openapi.json").then((response) => response.json()).then((description) => {
  document.getElementById("title").textContent =
    `${description.info.title}, version ${description.info.version}`;
  for (const [path, methods] of Object.entries(description.paths))
    for (const [method, operation] of Object.entries(methods))
      document.getElementById("paths").append(section(path, method, operation));
});
