// Writes src/wire.ts: the types of all frames, calls and answers, from the JSON Schema of the wire.

import { readFileSync, writeFileSync } from "node:fs";

const SCHEMA = new URL("../../../docs/wire.schema.json", import.meta.url);
const TARGET = new URL("../src/wire.ts", import.meta.url);

const WIDTH = 110;

/** Return the TypeScript type of a schema. */
function typeOf(schema) {
  if (schema.$ref !== undefined) return schema.$ref.split("/").at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum !== undefined) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.anyOf !== undefined) return [...new Set(schema.anyOf.map(typeOf))].join(" | ");
  switch (schema.type) {
    case undefined:
      return "unknown";
    case "integer":
    case "number":
      return "number";
    case "array":
      if (schema.prefixItems !== undefined) return `[${schema.prefixItems.map(typeOf).join(", ")}]`;
      return `Array<${typeOf(schema.items ?? {})}>`;
    case "object":
      if (schema.properties !== undefined) return `{\n${propertiesOf(schema)}}`;
      return `Record<string, ${typeOf(schema.additionalProperties ?? {})}>`;
    case "null":
    case "boolean":
    case "string":
      return schema.type;
    default:
      throw new Error(`no TypeScript type for ${JSON.stringify(schema)}`);
  }
}

function propertiesOf({ properties, required = [] }) {
  return Object.entries(properties)
    .map(([name, schema]) => `  ${name}${required.includes(name) ? "" : "?"}: ${typeOf(schema)};\n`)
    .join("");
}

/** Return a text as a comment, broken into lines. */
function comment(text) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    if (lines.at(-1).length + word.length + 4 > WIDTH) lines.push("");
    lines[lines.length - 1] += ` ${word}`;
  }
  return lines.length === 1 ? `/**${lines[0]} */\n` : `/**\n${lines.map((line) => ` *${line}\n`).join("")} */\n`;
}

/** Return the declaration of a definition; constants and enumerations are values, too. */
function declare(name, schema) {
  const head = schema.description === undefined ? "" : comment(schema.description);
  if (schema.const !== undefined) return `${head}export const ${name} = ${JSON.stringify(schema.const)} as const;\n`;
  if (schema.enum !== undefined) {
    const values = `export const ${name} = ${JSON.stringify(schema.enum)} as const;\n`;
    return `${head}${values}export type ${name} = (typeof ${name})[number];\n`;
  }
  if (schema.properties !== undefined) return `${head}export interface ${name} {\n${propertiesOf(schema)}}\n`;
  return `${head}export type ${name} = ${typeOf(schema)};\n`;
}

const { title, $defs: definitions } = JSON.parse(readFileSync(SCHEMA, "utf8"));
const declarations = Object.entries(definitions).map(([name, schema]) => declare(name, schema));
const head = `// ${title}. Generated from docs/wire.schema.json by scripts/generate.mjs: change bus/wire instead.\n`;
writeFileSync(TARGET, [head, ...declarations].join("\n"));
