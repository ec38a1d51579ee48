/** The server's interface, as in /openapi.json. */

/** What the server refused, or that it could not be reached. `param` names the field that it is about. */
export class ApiError extends Error {
  constructor({ message, code = "", param = null }, status = 0, retryAfter = 0) {
    super(message);
    Object.assign(this, { code, param, status, retryAfter });
  }
}

async function ask(path, { method = "GET", body, json, signal } = {}) {
  const headers = json === undefined ? {} : { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(path, { method, headers, body: json === undefined ? body : JSON.stringify(json), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ message: "The server does not answer. Is it running?", code: "unreachable" });
  }
  if (response.ok) return response;
  const told = (await response.json().catch(() => null))?.error;
  const failure = told ?? { message: `The server answered ${response.status}.` };
  throw new ApiError(failure, response.status, Number(response.headers.get("Retry-After") ?? 0));
}

const plain = async (...request) => (await ask(...request)).json();
const address = (id, rest = "") => `/v1/videos/${encodeURIComponent(id)}${rest}`;

export const session = () => plain("/v1/session");
export const signIn = (key) => ask("/login", { method: "POST", body: new URLSearchParams({ key }) });
export const signOut = () => ask("/logout", { method: "POST" });

export const models = async () => (await plain("/v1/videos/models")).data;
export const create = (form) => plain("/v1/videos", { method: "POST", body: form });
export const retrieve = (id) => plain(address(id));
export const cancel = (id) => plain(address(id, "/cancel"), { method: "POST" });
export const remove = (id) => plain(address(id), { method: "DELETE" });
export const restore = (id) => plain(address(id, "/restore"), { method: "POST" });
export const setFavourite = (id, favourite) => plain(address(id, "/favourite"), { method: "PUT", json: { favourite } });

/** A page of one's own videos, newest first: `{data, has_more, last_id}`. */
export function list({ after, limit = 40, search, favourites, signal } = {}) {
  const query = new URLSearchParams({ limit, order: "desc" });
  if (after) query.set("after", after);
  if (search) query.set("search", search);
  if (favourites) query.set("favourites", "true");
  return plain(`/v1/videos?${query}`, { signal });
}

/** The settings inside a clip of ours: `{request, command, python, model}`; an ApiError for other files. */
export function inspect(file) {
  const body = new FormData();
  body.set("file", file);
  return plain("/v1/videos/inspect", { method: "POST", body });
}

/** Whether a clip or picture was made here, see `Detected` in /openapi.json. */
export function detect(file, signal) {
  const body = new FormData();
  body.set("file", file);
  return plain("/v1/detect", { method: "POST", body, signal });
}

export const contentOf = (id, query = {}) => address(id, `/content?${new URLSearchParams(query)}`);
export const thumbnailOf = (id) => contentOf(id, { variant: "thumbnail" });
export const previewOf = (video) => address(video.id, `/preview.webp?v=${video.preview}`);
export const sourceOf = (id, name = "source") => address(id, `/source?name=${name}`);

/** Fetch a file: `{blob, name}`, with the name that the server gives it. */
export async function download(path) {
  const response = await ask(path);
  const name = /filename="?([^";]+)/.exec(response.headers.get("Content-Disposition") ?? "")?.[1];
  return { blob: await response.blob(), name };
}
