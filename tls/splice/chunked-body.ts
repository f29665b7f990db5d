/**
 * Reads a chunked body (RFC 9112 §7.1) piece by piece: what of each piece is content, and where the body
 * ends. Strict: lines end in CRLF, sizes have one spelling. Extensions and trailers are read over, since
 * neither is passed on; they are bounded.
 */

export interface ChunkedBody {
  /**
   * Takes the next piece. The content in it is added to `content`, as views of the piece.
   * @returns bytes of the piece that belong to the body, where it ends in this piece; `more` where it does
   * not; `malformed` for what is no chunked body
   */
  readonly read: (piece: Buffer, content: Buffer[]) => number | "more" | "malformed";
}

/** Of one line: a size with its extensions, or a trailer. */
const MAX_LINE_BYTES = 4_096;
/** Of all trailers together. */
const MAX_TRAILER_BYTES = 16_384;
/** 12 digits: below 2^53. RFC 9112 §7.1.1 lets extensions follow. */
const SIZE_LINE = /^([0-9A-Fa-f]{1,12})(?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?$/;
const TRAILER_LINE = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\t\x20-\x7e\x80-\xff]*$/;
const CR = 0x0d;
const LF = 0x0a;

interface Progress {
  state: "size" | "content" | "content-end" | "trailer" | "end";
  /** Bytes of the chunk that are still to come; of its CRLF in the state `content-end`. */
  left: number;
  /** What there is of the line that is being read. */
  line: string;
  trailerBytes: number;
}

export function createChunkedBody(): ChunkedBody {
  const progress: Progress = { state: "size", left: 0, line: "", trailerBytes: 0 };
  return {
    read: (piece, content) => {
      let at = 0;
      while (at < piece.length) {
        const next = step(progress, piece, at, content);
        if (next === undefined) return "malformed";
        at = next;
        if (progress.state === "end") return at;
      }
      return "more";
    },
  };
}

/** Reads on from `at`. @returns where it stopped; undefined for what is malformed */
function step(
  progress: Progress,
  piece: Buffer,
  at: number,
  content: Buffer[],
): number | undefined {
  if (progress.state === "content") return takeContent(progress, piece, at, content);
  if (progress.state !== "content-end") return takeLine(progress, piece, at);
  if (piece[at] !== (progress.left === 2 ? CR : LF)) return undefined;
  progress.left -= 1;
  if (progress.left === 0) progress.state = "size";
  return at + 1;
}

function takeContent(progress: Progress, piece: Buffer, at: number, content: Buffer[]): number {
  const end = Math.min(piece.length, at + progress.left);
  content.push(piece.subarray(at, end));
  progress.left -= end - at;
  if (progress.left === 0) {
    progress.state = "content-end";
    progress.left = 2;
  }
  return end;
}

function takeLine(progress: Progress, piece: Buffer, at: number): number | undefined {
  const feed = piece.indexOf(LF, at);
  const next = feed < 0 ? piece.length : feed + 1;
  if (progress.line.length + next - at > MAX_LINE_BYTES) return undefined;
  progress.line += piece.toString("latin1", at, next);
  if (feed < 0) return next;
  if (!progress.line.endsWith("\r\n")) return undefined;
  const text = progress.line.slice(0, -2);
  progress.line = "";
  const isSound =
    progress.state === "size" ? takeSize(progress, text) : takeTrailer(progress, text);
  return isSound ? next : undefined;
}

function takeSize(progress: Progress, text: string): boolean {
  const digits = SIZE_LINE.exec(text)?.[1];
  if (digits === undefined) return false;
  progress.left = Number.parseInt(digits, 16);
  progress.state = progress.left === 0 ? "trailer" : "content";
  return true;
}

function takeTrailer(progress: Progress, text: string): boolean {
  if (text === "") {
    progress.state = "end";
    return true;
  }
  progress.trailerBytes += text.length;
  return progress.trailerBytes <= MAX_TRAILER_BYTES && TRAILER_LINE.test(text);
}
