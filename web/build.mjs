/**
 * Builds the page, or its tests: `node build.mjs [--test]`.
 *
 * Invariant: the same sources and lock file give the same bytes on any machine; the script can stand inside a
 * `<script>` element, and carries the licence of everything that is bundled.
 *
 * esbuild bundles `src/main.tsx` and `src/styles/page.css` into `spark_rl/report/page/`, which is committed, so that
 * installing the Python package needs no Node. Which packages went in is read from esbuild's own account of the bundle.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const page = join(here, "..", "spark_rl", "report", "page");
const common = {
  absWorkingDir: here,
  bundle: true,
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  preserveSymlinks: true, // where the packages really lie must not matter
  logLevel: "warning",
};

if (process.argv.includes("--test")) await test();
else await make();

async function make() {
  mkdirSync(page, { recursive: true });
  const result = await build({
    ...common,
    entryPoints: { page: "src/main.tsx" },
    format: "iife",
    minify: true,
    define: { "process.env.NODE_ENV": '"production"' },
    metafile: true,
    legalComments: "none", // `licences` brings the whole texts, at the end
    write: false,
    outdir: page,
  });
  const script = result.outputFiles[0].text + licences(result.metafile);
  // Either would end or garble the element that a report puts the script in.
  for (const mark of ["</script", "<!--", "{{"]) {
    if (script.toLowerCase().includes(mark)) throw new Error(`page.js holds ${mark}`);
  }
  writeFileSync(join(page, "page.js"), script);
  await build({ ...common, entryPoints: { page: "src/styles/page.css" }, minify: true, outdir: page });
  copyFileSync(join(here, "src", "page.html"), join(page, "page.html"));
  console.log(`page.js ${script.length} bytes, page.css ${readFileSync(join(page, "page.css")).length} bytes`);
}

/** A comment with the licence of each bundled package, in alphabetical order. */
function licences(metafile) {
  const output = Object.values(metafile.outputs)[0];
  const used = Object.keys(output.inputs).filter((file) => output.inputs[file].bytesInOutput > 0);
  const names = new Set(used.map((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1]).filter(Boolean));
  const texts = [...names].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const files = readdirSync(folder, { withFileTypes: true, recursive: true })
      .filter(
        (file) => file.isFile() && /(^|\/)(licen[cs]e|notice|copying)[^/]*$/i.test(file.name) && !/\.[cm]?[jt]s$/.test(file.name),
      )
      .map((file) => join(file.parentPath ?? file.path, file.name))
      .filter((file) => !file.slice(folder.length).includes("node_modules"))
      .sort();
    if (!files.length) throw new Error(`${name} brings no licence`);
    const text = files.map((file) => readFileSync(file, "utf8").trim()).join("\n\n");
    return `${name} ${version} (${license})\n\n${text}`;
  });
  const all = texts
    .join(`\n\n${"-".repeat(80)}\n\n`)
    .replaceAll("\r", "")
    .replaceAll("*/", "* /");
  return `/*!\nThis page bundles:\n\n${all}\n*/\n`;
}

/** Each test file is bundled to plain JavaScript, which any Node from 20 on can run. */
async function test() {
  const folder = mkdtempSync(join(tmpdir(), "spark-rl-page-"));
  try {
    const tests = readdirSync(join(here, "test")).filter((file) => file.endsWith(".test.ts"));
    await build({
      ...common,
      entryPoints: tests.map((file) => `test/${file}`),
      format: "esm",
      platform: "node",
      outdir: folder,
      outExtension: { ".js": ".mjs" },
    });
    const files = readdirSync(folder)
      .map((file) => join(folder, file))
      .filter(existsSync);
    process.exitCode = spawnSync(process.execPath, ["--test", ...files], { stdio: "inherit" }).status ?? 1;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
