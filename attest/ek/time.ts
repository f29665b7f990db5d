/**
 * Time of RFC 5280 §4.1.2.5: UTCTime YYMMDDHHMMSSZ and GeneralizedTime YYYYMMDDHHMMSSZ, no other
 * form. 99991231235959Z, "no well-defined expiration date", is the instant that it spells.
 */
import { StileError } from "../../wire/index.ts";
import { type DerValue, TAG } from "./der.ts";

/** @returns Unix milliseconds. @throws `ATTEST_EK_CERTIFICATE_INVALID` */
export function readTime(value: DerValue | undefined): number {
  if (value?.tag !== TAG.UTC_TIME && value?.tag !== TAG.GENERALIZED_TIME) throw timeError();
  const yearDigits = value.tag === TAG.UTC_TIME ? 2 : 4;
  const text = String.fromCharCode(...value.content.subarray(0, 16));
  if (text.length !== yearDigits + 11 || !/^\d+Z$/.test(text)) throw timeError();
  const digits = Number(text.slice(0, yearDigits));
  // RFC 5280 §4.1.2.5.1: two digits from 50 are 19YY.
  const year = yearDigits === 4 ? digits : digits >= 50 ? 1900 + digits : 2000 + digits;
  const part = (index: number): number => {
    const start = yearDigits + 2 * index;
    return Number(text.slice(start, start + 2));
  };
  const [month, day, hour, minute, second] = [part(0), part(1), part(2), part(3), part(4)];
  const time = Date.UTC(year, month - 1, day, hour, minute, second);
  // Date.UTC carries over: 31 February would become a date in March, and year 0099 would be 1999.
  const spelled = Number.isNaN(time) ? "" : new Date(time).toISOString().replaceAll(/[-:T]/g, "");
  const expected = `${String(year).padStart(4, "0")}${text.slice(yearDigits, -1)}.000Z`;
  if (spelled !== expected) throw timeError();
  return time;
}

function timeError(): StileError {
  return new StileError("ATTEST_EK_CERTIFICATE_INVALID", "certificate: malformed validity time");
}
