// Starts Chromium for the other scripts in this folder.
//
//     npm install playwright-core                # in any folder; set NODE_PATH to it
//
// The browser is CHROMIUM, or /usr/bin/chromium (Debian's package `chromium`).

import { existsSync } from "node:fs";
import { createRequire } from "node:module";

function unavailable(why) {
  console.log(why);
  process.exit(3);
}

/** Starts the browser. With `check` it only ends the process: with 0 if everything is installed,
 * otherwise with 3 and a line that names what is missing. */
export async function launch({ check }) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) unavailable(`there is no Chromium at ${executablePath}`);
  let chromium;
  try {
    // `require` uses NODE_PATH, `import` does not.
    ({ chromium } = createRequire(import.meta.url)("playwright-core"));
  } catch {
    unavailable("playwright-core is not installed: `npm install playwright-core`, NODE_PATH");
  }
  if (check) process.exit(0);
  return chromium.launch({
    executablePath,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
    ],
  });
}
