// A bot of another language, with the npm client `mqtt`: party.cjs PORT CA_FILE VERSION (5 or 4, which is 3.1.1); the
// password is in JUKEBOX_PASSWORD. Drives a party at hq/lobby, and prints each reply as a line of JSON.
const { readFileSync } = require("fs");
const mqtt = require("mqtt");

const [port, ca, version] = process.argv.slice(2);
const five = version === "5";
const back = five ? "jukebox/1/hq/reply/party" : "jukebox/1/hq/lobby/reply";
const at = "jukebox/1/hq/lobby";

async function party() {
  const client = await mqtt.connectAsync(`mqtts://127.0.0.1:${port}`, {
    username: "bot", password: process.env.JUKEBOX_PASSWORD, ca: readFileSync(ca), protocolVersion: Number(version),
  });
  const waiting = new Map();
  client.on("message", (topic, payload, packet) => {
    const reply = JSON.parse(payload);
    if (topic !== back || !waiting.has(reply.id)) return;
    if (five && packet.properties?.correlationData?.toString() !== reply.id) throw new Error("not our correlation data");
    waiting.get(reply.id)(reply);
  });
  await client.subscribeAsync(back, { qos: 1 });
  let count = 0;
  const ask = async (verb, fields = {}) => {
    const id = `party-${version}-${process.pid}-${++count}`;
    const answer = new Promise((done, late) => {
      waiting.set(id, done);
      setTimeout(() => late(new Error(`no reply to ${verb}`)), 20000).unref();
    });
    const properties = five ? { responseTopic: back, correlationData: Buffer.from(id) } : undefined;
    await client.publishAsync(`${at}/command/${verb}`, JSON.stringify({ ...fields, id, by: "party" }), { qos: 1, properties });
    const reply = await answer;
    console.log(JSON.stringify(reply));
    return reply;
  };
  await ask("playlist", { name: "friday-night", mode: "replace", shuffle: true });
  const added = await ask("add", { text: "waterloo", twice: true });
  await ask("move", { entry: added.data.entry, where: "next" });
  await ask("skip");
  await ask("seek", { position_ms: 1000 });
  await ask("volume", { percent: 20 });
  await ask("previous");
  await ask("stop", { after: "track" });
  await ask("queue", { limit: 5 });
  await ask("history");
  await ask("clear", { only_by: "party" });
  await ask("stop");
  await client.endAsync();
}
party().catch((e) => { console.error(e); process.exit(1); });
