"use strict";

function createElement(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function table(rows) {
  const element = createElement("table");
  for (const [name, text] of rows) {
    const row = element.insertRow();
    row.insertCell().append(createElement("code", name));
    row.insertCell().textContent = text;
  }
  return element;
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
  const element = createElement("section");
  const heading = createElement("h2");
  heading.append(createElement("span", method, "method"), createElement("code", path));
  element.append(heading, createElement("p", operation.summary));
  const content = operation.requestBody?.content ?? {};
  element.append(createElement("pre", curl(path, method, Object.keys(content)).join("\n")));
  const example = operation.responses["200"].content["application/json"]?.example;
  if (example) element.append(createElement("pre", JSON.stringify(example, null, 2)));
  const statuses = Object.entries(operation.responses);
  element.append(table(statuses.map(([status, response]) => [status, response.description])));
  return element;
}

fetch("openapi.json").then((response) => response.json()).then((description) => {
  document.getElementById("title").textContent =
    `${description.info.title}, version ${description.info.version}`;
  for (const [path, methods] of Object.entries(description.paths))
    for (const [method, operation] of Object.entries(methods))
      document.getElementById("paths").append(section(path, method, operation));
});
