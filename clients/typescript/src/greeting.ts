/**
 * What an address says of itself: whether a worker with or without keys answers there, or something else.
 *
 * Asked in the bytes that begin every connection of ZMTP 3.0 (RFC 23 of ZeroMQ). ZeroMQ asks it too, but whichever
 * end sees first that the other one has no keys closes the connection, and the other may not hear why.
 */
import { connect, type Socket } from "node:net";

const SIGNATURE_AND_VERSION = Buffer.from("ff00000000000000007f03", "hex");

/* Where the mechanism is, after the signature and the version. */
const MECHANISM = [12, 32] as const;

const SECONDS = 2;

/** Return "CURVE" or "NULL" for a worker with or without keys; undefined if there is none, or it does not answer. */
export function mechanismAt(url: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = open(url);
    const end = (mechanism?: string) => {
      socket.destroy();
      resolve(mechanism);
    };
    let greeting = Buffer.alloc(0);
    socket.setTimeout(SECONDS * 1000, end);
    socket.on("error", () => end());
    socket.on("end", () => end());
    socket.on("data", (data: Buffer) => {
      greeting = Buffer.concat([greeting, data]);
      if (greeting[0] !== SIGNATURE_AND_VERSION[0]) end();
      else if (greeting.length >= MECHANISM[1]) end(greeting.toString("latin1", ...MECHANISM).replace(/\0+$/, ""));
    });
    socket.write(SIGNATURE_AND_VERSION);
  });
}

function open(url: string): Socket {
  const [scheme, rest = ""] = url.split("://");
  if (scheme === "ipc") return connect(rest);
  const colon = rest.lastIndexOf(":");
  return connect(Number(rest.slice(colon + 1)), rest.slice(0, colon).replace(/^\[|\]$/g, ""));
}
