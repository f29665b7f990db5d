/** The page as a person sees it: one state at a time, told to screen readers as it changes. */
import type { FailureKind } from "./failure.ts";

export type Step = "starting" | "touching" | "making" | "entering";
export type ViewState =
  | { readonly kind: "ready" }
  | { readonly kind: "working"; readonly step: Step }
  /** Admitted, and what was being sent has to be sent again by the person. */
  | { readonly kind: "resend" }
  | { readonly kind: "failed"; readonly why: FailureKind; readonly retryAt: Date | undefined };

/** By state: heading, text, and what the button says. */
export type Texts = Readonly<Record<string, string>>;

export interface View {
  readonly show: (state: ViewState) => void;
}

const PROGRESS: Readonly<Record<Step, number>> = {
  starting: 0.1,
  touching: 0.3,
  making: 0.6,
  entering: 0.9,
};

export interface ViewActions {
  readonly onContinue: () => void;
  readonly onForget: () => void;
}

export function createView(texts: Texts, actions: ViewActions): View {
  const heading = element("heading");
  const text = element("text");
  const button = element("continue") as HTMLButtonElement;
  const progress = element("progress") as HTMLProgressElement;
  const forget = element("forget");
  const aside = element("aside");
  button.addEventListener("click", actions.onContinue);
  forget.addEventListener("click", actions.onForget);
  return {
    show: (state) => {
      const name = nameOf(state);
      document.body.dataset["state"] = name;
      heading.textContent = texts[`${name}.heading`] ?? texts[`${state.kind}.heading`] ?? "";
      text.textContent = textOf(texts, name, state);
      const action = texts[`${name}.button`];
      button.hidden = action === undefined;
      button.textContent = action ?? "";
      aside.hidden = state.kind !== "failed";
      forget.hidden = state.kind === "working";
      progress.hidden = state.kind !== "working";
      if (state.kind === "working") progress.value = PROGRESS[state.step];
      if (action !== undefined) button.focus({ preventScroll: true });
    },
  };
}

function nameOf(state: ViewState): string {
  if (state.kind === "working") return `working-${state.step}`;
  return state.kind === "failed" ? `failed-${state.why}` : state.kind;
}

function textOf(texts: Texts, name: string, state: ViewState): string {
  const text = texts[`${name}.text`] ?? "";
  if (state.kind !== "failed" || state.retryAt === undefined) return text;
  const time = new Intl.DateTimeFormat(document.documentElement.lang, {
    dateStyle: "short",
    timeStyle: "short",
  }).format(state.retryAt);
  return `${text} ${(texts["retry-at"] ?? "").replace("{time}", time)}`;
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page lacks #${id}`);
  return found;
}
