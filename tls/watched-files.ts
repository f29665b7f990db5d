/**
 * What is read from files that may change while the service runs: their content is compared at intervals, because
 * Kubernetes swaps a symbolic link and file events miss that, and when asked to. What cannot be used leaves
 * the last that could in use.
 */
import { readFileSync, statSync } from "node:fs";

export interface WatchedFilesOptions<T> {
  readonly files: readonly string[];
  /** Of each; a larger one is a mistake. */
  readonly maxBytes: number;
  /** All of them, in order. What it throws keeps the value before. */
  readonly parse: (contents: readonly Buffer[]) => T;
  readonly pollMs: number;
  /** Told of each change, and once of each way in which the files cannot be used. */
  readonly observe: (isUsable: boolean, error?: unknown) => void;
}

export interface WatchedFiles<T> {
  readonly current: () => T;
  readonly onChange: (listener: () => void) => void;
  /** Looks now. What is broken is reported again, even if it was before. */
  readonly reload: () => void;
  readonly close: () => void;
}

/** @throws what `parse` does, or that a file cannot be read, at start only */
export function watchFiles<T>(options: WatchedFilesOptions<T>): WatchedFiles<T> {
  const { observe, parse, pollMs } = options;
  let contents = readAll(options);
  let current = parse(contents);
  let failed: string | undefined;
  const listeners: (() => void)[] = [];

  function look(): void {
    try {
      const next = readAll(options);
      const isSame = next.every((content, i) => content.equals(contents[i] ?? Buffer.alloc(0)));
      if (!isSame) {
        current = parse(next);
        contents = next;
        for (const listener of listeners) listener();
        observe(true);
      }
      failed = undefined;
    } catch (error) {
      const reason = String(error);
      if (reason !== failed) observe(false, error);
      failed = reason;
    }
  }

  const timer = setInterval(look, pollMs);
  timer.unref();
  return {
    current: () => current,
    onChange: (listener) => listeners.push(listener),
    reload: () => {
      failed = undefined;
      look();
    },
    close: () => clearInterval(timer),
  };
}

function readAll({ files, maxBytes }: WatchedFilesOptions<unknown>): Buffer[] {
  return files.map((file) => {
    if (statSync(file).size > maxBytes) throw new Error("a file is too large");
    return readFileSync(file);
  });
}
