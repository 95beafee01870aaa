// A bot's credentials in JavaScript: what the page docs/protocol.md says of them, for the `zeromq` package.

import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";

const Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

function z85(key) {
  let text = "";
  for (let at = 0; at < key.length; at += 4) {
    let number = key.readUInt32BE(at);
    let part = "";
    for (let digit = 0; digit < 5; digit++) {
      part = Z85[number % 85] + part;
      number = Math.floor(number / 85);
    }
    text += part;
  }
  return text;
}

// The 32 bytes of `php_…` or `phs_…`, without the checksum.
function bytes(text) {
  return Buffer.from(text.slice(4), "base64url").subarray(0, 32);
}

function publicHalf(secret) {
  const pkcs8 = Buffer.concat([Buffer.from("302e020100300506032b656e04220420", "hex"), secret]);
  const key = createPublicKey(createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" }));
  return key.export({ format: "der", type: "spki" }).subarray(-32);
}

// Give the options of a socket that connects with the credentials in a file.
export function curve(path) {
  const field = (name) => readFileSync(path, "utf8").match(new RegExp(`^${name} = "(.*)"$`, "m"))[1];
  const secret = bytes(field("secret"));
  return {
    curveSecretKey: z85(secret),
    curvePublicKey: z85(publicHalf(secret)),
    curveServerKey: z85(bytes(field("worker"))),
  };
}
