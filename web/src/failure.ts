/** Why the page cannot let a person in, each with its own words and its own way on. */

export const FAILURES = [
  "unsupported",
  "cancelled",
  "refused",
  "exhausted",
  "offline",
  "busy",
  "cookies",
] as const;

export type FailureKind = (typeof FAILURES)[number];

export class Failure extends Error {
  readonly kind: FailureKind;
  /** Until it may work again, where the server said so. */
  readonly retryAfterSeconds: number | undefined;
  /** The type of the problem document that came with it. */
  readonly problem: string | undefined;

  constructor(kind: FailureKind, retryAfterSeconds?: number, problem?: string) {
    super(kind);
    this.kind = kind;
    this.retryAfterSeconds = retryAfterSeconds;
    this.problem = problem;
  }
}

/** Of an answer of Stile's endpoints that is not the hoped-for one. */
export async function failureOf(answer: Response): Promise<Failure> {
  const seconds = Number(answer.headers.get("retry-after"));
  const retryAfter = Number.isInteger(seconds) && seconds > 0 ? seconds : undefined;
  return new Failure(kindOf(answer.status), retryAfter, await problemOf(answer));
}

function kindOf(status: number): FailureKind {
  if (status === 429) return "exhausted";
  return status >= 500 ? "busy" : "refused";
}

async function problemOf(answer: Response): Promise<string | undefined> {
  try {
    const { type } = (await answer.json()) as { type?: unknown };
    return typeof type === "string" ? type : undefined;
  } catch {
    return undefined;
  }
}
