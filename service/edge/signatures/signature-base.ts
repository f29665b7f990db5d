/**
 * The signature base of a request (RFC 9421 §2): what was covered, in the order in which it was, and the
 * signature's parameters. Components that this request does not have, or that cannot be told in one way, are
 * refused: a base that says less than the signer meant would be signed by nobody.
 */
import { StileError } from "../../../wire/index.ts";
import { type InnerList, type Item, parseDictionary, writeMember } from "./structured-fields.ts";

/** Of a request, as the client meant it. */
export interface SignedRequest {
  readonly method: string;
  /** Host in its normal form: lower case, without the default port (RFC 9421 §2.2.3). */
  readonly authority: string;
  /** In origin form. */
  readonly target: string;
  /** Every line of a header in order, by its name in lower case. */
  readonly lines: (name: string) => readonly string[];
}

/** Lower case, as the identifier of a header must be (RFC 9421 §2.1). */
const FIELD_NAME = /^[a-z0-9!#$%&'*+.^_`|~-]+$/;

/** @throws `SERVICE_SIGNATURE_MALFORMED`, `SERVICE_SIGNATURE_INCOMPLETE` */
export function signatureBase(request: SignedRequest, covered: InnerList): string {
  const seen = new Set<string>();
  const lines = covered.items.map((component) => {
    const identifier = writeMember(component);
    // RFC 9421 §2.5: each identifier once.
    if (seen.has(identifier)) throw incomplete("a component is covered twice");
    seen.add(identifier);
    return `${identifier}: ${valueOf(request, component)}`;
  });
  return [...lines, `"@signature-params": ${writeMember(covered)}`].join("\n");
}

function valueOf(request: SignedRequest, { bare, parameters }: Item): string {
  if (bare.type !== "string") throw incomplete("a component is not a string");
  const name = bare.value;
  if (name === "@query-param" && parameters.size === 1) {
    return queryParameter(request.target, parameters.get("name"));
  }
  if (name.startsWith("@") && parameters.size === 0) return derived(request, name);
  if (!FIELD_NAME.test(name)) throw incomplete("an unknown component");
  const lines = request.lines(name);
  if (lines.length === 0) throw incomplete("a header that is covered is missing");
  const value = lines.map((line) => line.trim()).join(", ");
  if (parameters.size === 0) return value;
  const key = parameters.get("key");
  // sf, bs, req and tr: nobody signs requests to an edge with them, and a type of its own would be needed for sf.
  if (parameters.size > 1 || key?.type !== "string") throw incomplete("an unknown parameter");
  const member = parseDictionary(value).get(key.value);
  if (member === undefined) throw incomplete("a dictionary member that is covered is missing");
  return writeMember(member);
}

function derived({ authority, method, target }: SignedRequest, name: string): string {
  const query = target.indexOf("?");
  switch (name) {
    case "@method":
      return method;
    case "@authority":
      return authority;
    case "@scheme":
      return "https";
    case "@target-uri":
      return `https://${authority}${target}`;
    case "@request-target":
      return target;
    case "@path":
      return query < 0 ? target : target.slice(0, query);
    case "@query":
      return query < 0 ? "?" : target.slice(query);
    default:
      throw incomplete("an unknown component");
  }
}

/** RFC 9421 §2.2.8: decoded as a form's, and encoded again in one way. */
function queryParameter(
  target: string,
  name: { type: string; value: unknown } | undefined,
): string {
  const query = target.indexOf("?");
  const wanted = name?.type === "string" ? name.value : undefined;
  const pairs = [...new URLSearchParams(query < 0 ? "" : target.slice(query + 1))];
  const [first, ...more] = pairs.filter(([key]) => encodeForm(key) === wanted);
  if (first === undefined || more.length > 0)
    throw incomplete("a query parameter is not there once");
  return encodeForm(first[1]);
}

/** The application/x-www-form-urlencoded percent-encode set of the URL standard, with spaces as %20. */
function encodeForm(text: string): string {
  return encodeURIComponent(text.toWellFormed()).replaceAll(
    /[!'()~]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

export function incomplete(what: string): StileError {
  return new StileError("SERVICE_SIGNATURE_INCOMPLETE", `message signature: ${what}`);
}
