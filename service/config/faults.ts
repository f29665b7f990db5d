/** What a schema finds wrong with a file, as a sentence that names each setting by its full path. */

interface Fault {
  readonly keyword: string;
  readonly instancePath: string;
  readonly message: string;
  readonly params: object;
}

export function describeFaults(faults: readonly Fault[]): string {
  const told = faults.filter(({ keyword }) => keyword !== "boolean");
  return [...new Set(told.map((fault) => describeFault(fault)))].join("; ");
}

function describeFault({ instancePath, message, params }: Fault): string {
  const at = instancePath.slice(1).replaceAll("/", ".");
  const inside = (name: string): string => (at === "" ? name : `${at}.${name}`);
  if ("additionalProperties" in params && Array.isArray(params.additionalProperties)) {
    return `unknown setting ${params.additionalProperties.map(String).map(inside).join(", ")}`;
  }
  if ("requiredProperties" in params && Array.isArray(params.requiredProperties)) {
    return `missing setting ${params.requiredProperties.map(String).map(inside).join(", ")}`;
  }
  return `${at === "" ? "the file" : at} ${message}`;
}
