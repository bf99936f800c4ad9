// The methods of t.T; messages are bytes.  server.js CERT KEY, or nothing for cleartext; says its port.
const fs = require("fs");
const grpc = require("@grpc/grpc-js");

const same = (b) => b;
const method = (name, requestStream, responseStream) => ({
    path: `/t.T/${name}`, requestStream, responseStream, requestSerialize: same, requestDeserialize: same,
    responseSerialize: same, responseDeserialize: same,
});

const trailing = () => {
    const m = new grpc.Metadata();
    m.set("x-last", "2");
    m.set("x-last-bin", Buffer.from([0, 255]));
    return m;
};

const implementation = {
    Unary(call, done) {
        const first = new grpc.Metadata();
        first.set("x-first", "1");
        call.sendMetadata(first);
        done(null, Buffer.from(call.request).reverse(), trailing());
    },
    Fails(call, done) {
        done({code: grpc.status.FAILED_PRECONDITION, details: "not so: 100 % \u00fc", metadata: trailing()});
    },
    Hangs(call) {
        call.on("cancelled", () => console.log("cancelled"));
    },
    Down(call) {
        for (let i = 0; i < Number(call.request.toString()); i++)
            call.write(Buffer.from(String(i)));
        call.end();
    },
    Up(call, done) {
        let sum = 0;
        call.on("data", (m) => { sum += m.length; });
        call.on("end", () => done(null, Buffer.from(String(sum))));
    },
    Both(call) {
        call.on("data", (m) => call.write(Buffer.concat([Buffer.from("<"), m, Buffer.from(">")])));
        call.on("end", () => call.end());
    },
};

const server = new grpc.Server();
server.addService({
    Unary: method("Unary", false, false), Fails: method("Fails", false, false), Hangs: method("Hangs", false, false),
    Down: method("Down", false, true), Up: method("Up", true, false), Both: method("Both", true, true),
}, implementation);
const [cert, key] = process.argv.slice(2);
const credentials = cert
    ? grpc.ServerCredentials.createSsl(null, [{cert_chain: fs.readFileSync(cert), private_key: fs.readFileSync(key)}])
    : grpc.ServerCredentials.createInsecure();
server.bindAsync("127.0.0.1:0", credentials, (error, port) => {
    if (error)
        throw error;
    console.log(port);
});
process.stdin.on("end", () => process.exit(0)).resume(); // whoever started it has gone
