/** The path at which other proxies ask whether a request may pass. */

export const AUTHORIZE_PATH = "/.stile/authorize";

/** In its plain spelling, alone or, as Envoy asks, before the path of the request in question. */
export function isQuestion(url: string): boolean {
  if (!url.startsWith(AUTHORIZE_PATH)) return false;
  const next = url.charAt(AUTHORIZE_PATH.length);
  return next === "" || next === "?" || next === "/";
}
