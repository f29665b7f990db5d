/** The kinds of settings that the schema is made of. Each has a description, which the documentation shows. */
import { Type } from "typebox";

/** Of objects that take no other members. */
export const closed: { readonly additionalProperties: false } = { additionalProperties: false };
/** Of objects that may be left out. */
export const section: { readonly additionalProperties: false; readonly default: object } = {
  ...closed,
  default: {},
};
/** In seconds. */
export const DAY = 86_400;

/** A whole number with its range and default. */
export function whole(
  description: string,
  minimum: number,
  maximum: number,
  value: number,
): Type.TInteger {
  return Type.Integer({ description, minimum, maximum, default: value });
}

export function text(description: string, value?: string): Type.TString {
  return Type.String({
    description,
    minLength: 1,
    maxLength: 4096,
    ...(value === undefined ? {} : { default: value }),
  });
}

/** False where it is not said. */
export function flag(description: string): Type.TBoolean {
  return Type.Boolean({ description, default: false });
}

/** One of several words; the first is the default. */
export function choice<const T extends readonly [string, ...string[]]>(
  description: string,
  words: T,
): Type.TUnsafe<T[number]> {
  return Type.Unsafe<T[number]>({ description, type: "string", enum: words, default: words[0] });
}

/** A list that has something in it where it is said at all. */
export function some(
  description: string,
  pattern: string,
): Type.TOptional<Type.TArray<Type.TString>> {
  const item = Type.String({ pattern, maxLength: 2_048 });
  return Type.Optional(Type.Array(item, { description, minItems: 1, maxItems: 256 }));
}
