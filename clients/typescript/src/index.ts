/**
 * The TypeScript client of posthouse, a durable message bus for bots.
 *
 * Times are in seconds, as in the protocol, and their names say so.
 */
export { connect } from "./bot.js";
export type { Bot, ConnectOptions, Question, QuestionFields, ServeOptions, SubscribeOptions } from "./bot.js";
export type { Commit, CommitOptions, CommitReceipt, CommittedMessage, KeyedChange, RunChanges } from "./commits.js";
export { readCredentials, type Credentials } from "./credentials.js";
export { CREDENTIALS_VARIABLE, DEFAULT_URL, URL_VARIABLE } from "./endpoint.js";
export * from "./errors.js";
export type { Json } from "./frames.js";
export { newId } from "./ids.js";
export type { ReceiveOptions } from "./inbox.js";
export type { KeyedStore, KeyedValue, ListOptions, PutOptions, WatchOptions, WriteOptions } from "./kv.js";
export type { Message, ReturnOptions } from "./message.js";
export type { Receipt } from "./publishing.js";
export type { PublishOptions, Recipient, ReplyOptions, SendOptions } from "./sending.js";
export type { SettleOptions } from "./settling.js";
export type { CallOptions } from "./waiting.js";
export type { WillOptions } from "./wills.js";
export type * as wire from "./wire.js";
