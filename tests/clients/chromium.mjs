// A real Chromium for the scripts beside this one.
//
//     npm install playwright-core                # anywhere; NODE_PATH says where
//
// CHROMIUM is the browser, else /usr/bin/chromium (Debian's package `chromium`).

import { existsSync } from "node:fs";
import { createRequire } from "node:module";

function unavailable(why) {
  console.log(why);
  process.exit(3);
}

/** Starts the browser. With `check` it ends the process instead: with 0 if all is there, else with 3
 * and a line that says what is missing. */
export async function launch({ check }) {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  if (!existsSync(executablePath)) unavailable(`there is no Chromium at ${executablePath}`);
  let chromium;
  try {
    // `require` looks into NODE_PATH, `import` does not.
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
