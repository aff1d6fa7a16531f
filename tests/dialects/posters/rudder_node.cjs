// @rudderstack/rudder-sdk-node as it comes, gzip included: posts the calls on stdin.
const Analytics = require("@rudderstack/rudder-sdk-node");

const [url, key] = process.argv.slice(2);
const client = new Analytics(key, {
  dataPlaneUrl: url,
  flushAt: 100,
  flushInterval: 200,
  retryCount: 0,
  logLevel: "none",
  errorHandler: () => {},
});
const calls = JSON.parse(require("fs").readFileSync(0, "utf8"));
let waiting = calls.length;
// Flushes run beside each other: only the callbacks tell when the last of them is answered.
const answered = (error) => {
  if (error) {
    console.error(error);
    process.exit(1);
  }
  waiting -= 1;
  if (!waiting) process.exit(0);
};
for (const { call, ...message } of calls) client[call](message, answered);
