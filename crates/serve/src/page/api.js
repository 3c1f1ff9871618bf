// Talking to the server. The key lives in this module and nowhere else.

let key = null;

/** Remembers the key until the page is closed. */
export function setKey(value) {
  key = value;
}

/** What the server, or the way to it, has against a request. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = key === null ? {} : { "x-api-key": key };
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server cannot be reached; is it still running?", 0);
  }
  if (response.ok) return response;
  const refusal = await response.json().catch(() => ({}));
  throw new ApiError(refusal.error ?? `the server answered ${response.status}`, response.status);
}

/** Models, limits and samples. */
export const about = async () => (await ask("/v1/about")).json();

/** One stain of a drawn sample. */
export async function sample(number, stain, signal) {
  const response = await ask(`/v1/samples/${number}/${encodeURIComponent(stain)}.png`, { signal });
  return response.blob();
}

/** The classes that an image shows. */
export async function predict(form, signal) {
  return (await ask("/v1/predict", { method: "POST", body: form, signal })).json();
}

/** Where the network looked: hands each line to `onLine` as it comes. */
export async function explain(form, signal, onLine) {
  const response = await ask("/v1/explain", { method: "POST", body: form, signal });
  let text = "";
  const decoder = new TextDecoder();
  const take = (line) => {
    const value = JSON.parse(line);
    if (value.error !== undefined) throw new ApiError(value.error, response.status);
    onLine(value);
  };
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError("the connection broke off", 0);
    });
    if (done) break;
    const lines = (text + decoder.decode(value, { stream: true })).split("\n");
    text = lines.pop();
    lines.forEach(take);
  }
  if (text !== "") throw new ApiError("the answer broke off", 0);
}
