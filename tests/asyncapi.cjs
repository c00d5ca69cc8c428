// Reads an AsyncAPI document with AsyncAPI's own parser and says what is wrong with it: asyncapi.cjs FILE
const { readFileSync } = require("fs");
const { Parser } = require("@asyncapi/parser");

new Parser().parse(readFileSync(process.argv[2], "utf8")).then(({ document, diagnostics }) => {
  const wrong = diagnostics.filter((d) => d.severity < 2);
  wrong.forEach((d) => console.error(`${d.path.join(".")}: ${d.message}`));
  if (wrong.length || !document) process.exit(1);
  console.log(`AsyncAPI ${document.version()}: ${document.channels().length} channels, ${document.schemas().length} schemas`);
});
