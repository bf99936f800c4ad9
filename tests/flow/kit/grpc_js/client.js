// All kinds of call of t.T, one after the other; what came of each is said as JSON.
// client.js ADDRESS SECONDS [CA]
const fs = require("fs");
const grpc = require("@grpc/grpc-js");

const [address, seconds, ca] = process.argv.slice(2);
const same = (b) => b;
const client = ca
    ? new grpc.Client(address, grpc.credentials.createSsl(fs.readFileSync(ca)), {"grpc.ssl_target_name_override": "a.test"})
    : new grpc.Client(address, grpc.credentials.createInsecure());
const patience = (s) => ({deadline: new Date(Date.now() + 1000 * s)});
const empty = new grpc.Metadata();

function unary(name, message, wait = Number(seconds)) {
    return new Promise((done) => {
        const out = {};
        const call = client.makeUnaryRequest(`/t.T/${name}`, same, same, Buffer.from(message), empty, patience(wait),
            (error, value) => { out.error = error && error.code; out.value = value && value.toString("latin1"); });
        call.on("metadata", (m) => { out.first = m.getMap(); });
        call.on("status", (s) => {
            out.code = s.code;
            out.details = s.details;
            out.last = s.metadata.get("x-last");
            out.lastBin = s.metadata.get("x-last-bin").map((b) => b.toString("hex"));
            setImmediate(done, out);
        });
    });
}

function stream(call) {
    return new Promise((done) => {
        const values = [];
        call.on("data", (m) => values.push(m.toString("latin1")));
        call.on("error", () => {});
        call.on("status", (s) => setImmediate(done, {code: s.code, values}));
    });
}

async function up() {
    return new Promise((done) => {
        const call = client.makeClientStreamRequest("/t.T/Up", same, same, empty, patience(Number(seconds)),
            (error, value) => done({error: error && error.code, value: value && value.toString()}));
        for (let i = 0; i < 50; i++)
            call.write(Buffer.alloc(100000, 120));
        call.end();
    });
}

async function both() {
    const call = client.makeBidiStreamRequest("/t.T/Both", same, same, empty, patience(Number(seconds)));
    const result = stream(call);
    let n = 0;
    call.write(Buffer.from("0")); // each goes out only when the one before has come back
    call.on("data", () => (++n < 100 ? call.write(Buffer.from(String(n))) : call.end()));
    return result;
}

async function cancelled() {
    return new Promise((done) => {
        const call = client.makeUnaryRequest("/t.T/Hangs", same, same, Buffer.alloc(0), empty, patience(Number(seconds)),
            (error) => done(error.code));
        setTimeout(() => call.cancel(), 200);
    });
}

(async () => {
    const out = {};
    out.unary = await unary("Unary", "abc");
    out.fails = await unary("Fails", "");
    out.unknown = (await unary("Nothing", "")).code;
    out.down = await stream(client.makeServerStreamRequest("/t.T/Down", same, same, Buffer.from("500"), empty,
        patience(Number(seconds))));
    out.up = await up();
    out.both = await both();
    const big = "y".repeat(3000000);
    out.big = (await unary("Unary", big)).value === big;
    out.late = (await unary("Hangs", "", 0.3)).code;
    out.cancelled = await cancelled();
    console.log(JSON.stringify(out));
    client.close();
})();
