/** Comma-separated values. */
import { UserError } from "../errors.ts";

/** CSV text to records of fields with the line each begins on (RFC 4180 quotes; tab when the header has tabs). */
export function parseCsv(text: string, file: string): { line: number; fields: string[] }[] {
  const comma = text.split("\n", 1)[0].includes("\t") ? "\t" : ",";
  const records: { line: number; fields: string[] }[] = [];
  let fields: string[] = [], field = "", quoted = false, line = 1, start = 1, wasQuoted = false;
  const endRecord = () => {
    fields.push(wasQuoted ? field : field.trim());
    if (fields.length > 1 || fields[0] !== "") records.push({ line: start, fields });
    fields = [];
    field = "";
    wasQuoted = false;
  };
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted) {
      if (c === '"' && text[i + 1] === '"') field += text[i++];
      else if (c === '"') quoted = false;
      else field += c;
    } else if (c === '"' && field.trim() === "") {
      quoted = wasQuoted = true;
      field = "";
    } else if (c === comma) {
      fields.push(wasQuoted ? field : field.trim());
      field = "";
      wasQuoted = false;
    } else if (c === "\n") endRecord();
    else if (c !== "\r") field += c;
    if (c === "\n") {
      line++;
      if (!quoted) start = line;
    }
  }
  if (quoted) throw new UserError(`${file}:${start}: a quote is not closed; close it or double it`);
  endRecord();
  return records;
}
