// @rudderstack/rudder-sdk-node as it comes, gzip included: posts the calls on stdin.
const Analytics = require("@rudderstack/rudder-sdk-node");

const [url, key] = process.argv.slice(2);
const client = new Analytics(key, { dataPlaneUrl: url, flushAt: 100, retryCount: 0, logLevel: "none" });
const calls = JSON.parse(require("fs").readFileSync(0, "utf8"));
for (const { call, ...message } of calls) client[call](message);
(async () => {
  do await client.flush();
  while (client.queue.length);
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
