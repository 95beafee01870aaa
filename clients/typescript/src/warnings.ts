/** What an operator should know, and no call can be told: Node writes it to standard error. */

/** Emit a warning; `process.on("warning", …)` receives it, with the name PosthouseWarning. */
export function warn(text: string): void {
  process.emitWarning(text, "PosthouseWarning");
}
