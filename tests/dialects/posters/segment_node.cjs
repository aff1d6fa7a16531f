// @segment/analytics-node as it comes: posts the calls on stdin.
const { Analytics } = require("@segment/analytics-node");

const [url, key] = process.argv.slice(2);
const client = new Analytics({ writeKey: key, host: url, maxEventsInBatch: 100, maxRetries: Number(process.env.MAX_RETRIES || 0) });
let failed = 0;
client.on("error", (error) => {
  failed += 1;
  console.error(error);
});
const calls = JSON.parse(require("fs").readFileSync(0, "utf8"));
for (const { call, ...message } of calls) client[call](message);
client.closeAndFlush().then(() => process.exit(failed ? 1 : 0));
