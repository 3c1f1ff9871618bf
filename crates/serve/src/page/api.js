// Requests to the server. The API key is stored in this module only.

let key = null;

/** Sets the key for all further requests, until the page is closed. */
export function setKey(value) {
  key = value;
}

/** An error response, or a connection error with status 0. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function send(path, options = {}) {
  const headers = key === null ? {} : { "x-api-key": key };
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("cannot reach the server; check that it is running", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const message = body.error ?? `the server responded with status ${response.status}`;
  throw new ApiError(message, response.status);
}

/** Models, limits and samples. */
export const serverInfo = async () => (await send("/v1/about")).json();

/** One stain of a synthetic sample. */
export async function sample(number, stain, signal) {
  const response = await send(`/v1/samples/${number}/${encodeURIComponent(stain)}.png`, { signal });
  return response.blob();
}

/** The prediction for an image. */
export async function predict(form, signal) {
  return (await send("/v1/predict", { method: "POST", body: form, signal })).json();
}

/** Explains a prediction: calls `onLine` with each line of the response as it arrives. */
export async function explain(form, signal, onLine) {
  const response = await send("/v1/explain", { method: "POST", body: form, signal });
  let text = "";
  const decoder = new TextDecoder();
  const handle = (line) => {
    const value = JSON.parse(line);
    if (value.error !== undefined) throw new ApiError(value.error, response.status);
    onLine(value);
  };
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError("the connection was lost", 0);
    });
    if (done) break;
    const lines = (text + decoder.decode(value, { stream: true })).split("\n");
    text = lines.pop();
    lines.forEach(handle);
  }
  if (text !== "") throw new ApiError("the response is incomplete", 0);
}
