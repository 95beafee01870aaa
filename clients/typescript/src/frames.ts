/** Frames as bytes: JSON, and publish frames that are put together from messages that are written already. */
import { InvalidBody } from "./errors.js";
import type { ClientFrame, WorkerFrame } from "./wire.js";

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [name: string]: Json };

/** Return a frame as it is sent. Raise InvalidBody for what JSON would lose in silence from the arguments of a call or in a commit. */
export function encode(frame: ClientFrame): string {
  return JSON.stringify(frame, frame.op === "workflow" || frame.op === "commit" ? refuseLosses : undefined);
}

/** Return a publish frame with messages that are already encoded. */
export function publishFrame(request: number, messages: readonly string[]): string {
  return `{"op":"publish","request":${request},"messages":[${messages.join(",")}]}`;
}

/** Return a worker's frame; undefined for what is none. Its `op` may be one of a later version. */
export function decode(data: Buffer): WorkerFrame | undefined {
  let frame: unknown;
  try {
    frame = JSON.parse(data.toString());
  } catch {
    return undefined;
  }
  return typeof frame === "object" && frame !== null && "op" in frame ? (frame as WorkerFrame) : undefined;
}

/** Return a value as a body. Raise InvalidBody for what JSON would lose in silence. */
export function writeBody(value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value, refuseLosses);
  } catch (error) {
    if (error instanceof InvalidBody) throw error;
    throw invalidBody(error instanceof Error ? error.message : String(error)); // a circle, or a toJSON that fails
  }
  if (text === undefined) throw invalidBody("undefined is not JSON; send null");
  return text;
}

function refuseLosses(name: string, value: unknown): unknown {
  const where = name === "" ? "" : ` at '${name}'`;
  switch (typeof value) {
    case "number":
      if (!Number.isFinite(value)) throw invalidBody(`${value}${where} is not JSON`);
      return value;
    case "bigint":
    case "function":
    case "symbol":
      throw invalidBody(`a ${typeof value}${where} is not JSON`);
    case "object":
      if (value instanceof Map || value instanceof Set) {
        throw invalidBody(`a ${value.constructor.name}${where} is not JSON; make it an object or an array`);
      }
      return value;
    default:
      return value;
  }
}

function invalidBody(message: string): InvalidBody {
  return new InvalidBody({ code: "invalid_body", message });
}
