"use strict";
// The page plays back what the lab has recorded. It makes nothing up: each change on it is an event in the recording.
const $ = (id) => document.getElementById(id);
const secret = document.querySelector("meta[name=penny]").content;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let recording = null, lanes = [], now = 0, end = 1, playing = false, lab = "", heard = "", run = 0;

// What the lab says.

async function send(path, body) {
	try {
		const answer = await fetch(path, { method: "POST", headers: { "X-Penny": secret }, body: body && JSON.stringify(body) });
		if (!answer.ok) $("state").textContent = await answer.text();
	} catch { lost(); }
}

// listen asks the lab twice a second, whether it answers or not.
async function listen() {
	try {
		await hear(await (await fetch("/state")).json());
	} catch { lost(); }
	setTimeout(listen, 500);
}

function lost() {
	heard = "";
	$("state").textContent = "The lab does not answer: it has stopped, or is starting again. This page goes on trying.";
	$("state").className = "lost";
	for (const button of document.querySelectorAll(".record, #stop")) button.disabled = true;
}

async function hear(snapshot) {
	if (lab && lab !== snapshot.lab) return location.reload(); // another lab answers now, which does not know this page's secret
	lab = snapshot.lab;
	if (JSON.stringify(snapshot) === heard) return;
	const busy = snapshot.state === "recording";
	const words = { recording: "Recording: ", failed: "The recording failed: ", done: "" };
	$("state").textContent = words[snapshot.state] + (snapshot.message || (run || snapshot.run ? "Recorded on a real server." : "Ready."));
	$("state").className = "";
	for (const button of document.querySelectorAll(".record")) button.disabled = busy;
	$("stop").disabled = !busy;
	if (snapshot.run !== run && snapshot.run) {
		const loaded = await (await fetch("/recording.json")).json();
		run = snapshot.run;
		show(loaded);
	}
	heard = JSON.stringify(snapshot);
}

$("form").addEventListener("submit", (event) => {
	event.preventDefault();
	const number = (id) => Number($(id).value);
	const fault = event.submitter ? event.submitter.value : "";
	send("/record", { all: $("all").checked, calls: number("calls"), workers: number("workers"), pool: number("pool"), rtt: number("rtt"), fault });
});
$("stop").addEventListener("click", () => send("/stop"));

// What the recording says.

const openingPhases = new Set(["socket", "TLS", "login"]);

// places gives each connection the lowest place that is free while it is open, and returns how many there are.
function places(connections) {
	const ends = [];
	for (const c of connections) {
		let i = ends.findIndex((end) => end <= c.open);
		if (i < 0) i = ends.length;
		ends[i] = c.close;
		c.place = i;
		c.served = c.trips.some((t) => t.phase === "question" && t.end > 0);
	}
	return ends.length;
}

// connect tells each call which connections it had, and from when until when: in a pool while it asked, without one for as long
// as they were open.
function connect(lane) {
	for (const call of lane.calls) call.had = [];
	for (const c of lane.connections) {
		if (!lane.pooled) {
			if (c.trips[0].call >= 0) lane.calls[c.trips[0].call].had.push({ c, from: c.open, until: c.close });
			continue;
		}
		for (const trip of c.trips) {
			if (trip.call < 0) continue;
			const call = lane.calls[trip.call], last = call.had.at(-1);
			if (!last || last.c !== c) call.had.push({ c, from: trip.begin, until: call.end });
		}
	}
}

function show(loaded) {
	recording = loaded;
	lanes = recording.lanes.map((lane) => {
		for (const key of ["calls", "connections", "processes"]) lane[key] = lane[key] || [];
		lane.errors = lane.errors || {};
		lane.rows = Math.max(places(lane.connections), lane.pooled ? recording.pool : 1);
		connect(lane);
		return lane;
	});
	end = Math.max(1, ...lanes.map((l) => Math.max(l.elapsed_ms, ...l.connections.map((c) => c.close), ...l.processes.map((s) => s.at)))) + 1;
	$("time").max = end;
	$("timeline").hidden = $("links").hidden = false;
	$("one").textContent = recording.sentence;
	$("timeline").alt = lanes.map((l) => `${l.name}: ${l.round_trips_per_call} round trips in ${l.call_ms.toFixed(1)} ms`).join("; ");
	const fault = recording.fault ? `; half-way: ${recording.fault}` : "";
	$("conditions").textContent = `${recording.workers} callers, ${recording.calls} calls, pools of ${recording.pool}, ` +
		`${recording.rtt_ms} ms between program and server; a server with ${recording.max_connections} places${fault}. ` +
		`${recording.date}; ${recording.machine}; ${recording.server}. The pools begin empty. One place of the server is the lab's own, which counts the processes.` +
		(recording.rtt_ms > 0 ? " database1 is not here: its file is on this computer, with no round trips." : "");
	build();
	now = 0;
	play(!calm.matches);
}

// The stage: an SVG for each lane, drawn again when the width changes.

const SVG = "http://www.w3.org/2000/svg";
function make(parent, name, attributes, text) {
	const node = document.createElementNS(SVG, name);
	for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
	if (text !== undefined) node.textContent = text;
	parent.append(node);
	return node;
}

function build() {
	const stage = $("lanes");
	const scale = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
	$("timeline").src = `/timeline.svg?run=${run}&width=${Math.round($("many").clientWidth / scale)}`;
	stage.replaceChildren();
	for (const lane of lanes) {
		const section = document.createElement("section"), heading = document.createElement("h3"), figures = document.createElement("p");
		heading.textContent = `${lane.pooled ? "Pool" : "No pool"}: ${lane.name} (${lane.about})`;
		section.append(heading);
		stage.append(section);
		const width = Math.max(300, section.clientWidth / scale);
		const svg = make(section, "svg", { role: "img" });
		section.append(figures);
		const zone = width / 3, size = 26;
		// grid lays n things of a size out in a zone, and returns where each of them is.
		const grid = (left, n, size) => {
			const columns = Math.max(1, Math.floor((zone - 12) / size));
			return Array.from({ length: n }, (_, i) => [left + (i % columns) * size, 26 + Math.floor(i / columns) * size]);
		};
		const queue = grid(4, recording.workers, 20), boxes = grid(zone + 4, lane.rows, size + 4);
		const seats = Math.min(Math.max(recording.max_connections, ...lane.processes.map((s) => (s.pids || []).length)), 100);
		const chairs = grid(2 * zone + 4, seats, 20);
		// The failed calls pile up as crosses, below the callers that wait.
		const below = lane.pooled ? queue.at(-1)[1] : 4;
		const pile = grid(6, Object.values(lane.errors).reduce((sum, n) => sum + n, 0), 13).map(([x, y]) => [x, y + below]);
		const height = Math.max(...[...(lane.pooled ? queue : []), ...pile, ...boxes, ...chairs].map(([, y]) => y)) + size + 6;
		svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
		make(svg, "text", { x: 2, y: 16 }, lane.pooled ? "callers that wait" : "calls that failed");
		make(svg, "text", { x: zone, y: 16 }, lane.pooled && lane.rows === recording.pool ? `${lane.rows} places` : "connections");
		make(svg, "text", { x: 2 * zone, y: 16 }, "server");
		lane.boxes = boxes.map(([x, y]) => ({
			frame: make(svg, "rect", { class: "place", x, y, width: size, height: size }), fill: make(svg, "rect", { x, width: size, height: 0 }),
			cross: make(svg, "path", { class: "bad", d: `M${x + 5} ${y + 5}l16 16m0-16l-16 16`, visibility: "hidden" }), x, y,
		}));
		lane.chairs = chairs.map(([x, y]) => make(svg, "circle", { class: "noprocess", cx: x + 8, cy: y + 8, r: 7 }));
		lane.dots = queue.map((_, i) => {
			const g = make(svg, "g", {});
			make(g, "circle", { class: "caller", r: 9 });
			make(g, "text", { class: "number", y: 4 }, i + 1);
			return g;
		});
		lane.failures = make(svg, "path", { class: "bad small" });
		Object.assign(lane, { svg, figures, queue, size, pile: pile.map(([x, y]) => `M${x} ${y}l8 8m0-8l-8 8`) });
	}
	draw();
}

// draw shows the moment now in every lane.
function draw() {
	$("clock").textContent = `${now.toFixed(now < 10 ? 1 : 0)} of ${end.toFixed(0)} ms`;
	$("time").value = now;
	for (const lane of lanes) drawLane(lane);
}

const flash = 40; // milliseconds of the recording for which a cross stays

function drawLane(lane) {
	let answered = 0, failed = 0, open = 0;
	const waiting = [], holders = new Map(); // the callers that wait, and who holds which connection
	for (const call of lane.calls) {
		if (call.end <= now) call.error ? failed++ : answered++;
		else if (call.begin <= now) {
			const had = call.had.findLast((h) => h.from <= now && now < h.until);
			if (had) holders.set(had.c, call.caller);
			else if (lane.pooled) waiting.push(call);
		}
	}
	const states = lane.boxes.map(() => "none");
	for (const c of lane.connections) {
		if (c.open <= now && now < c.close) {
			open++;
			const trip = c.trips.findLast((t) => t.begin <= now);
			const going = trip && trip.phase !== "goodbye" && (now < trip.end || !trip.end);
			const asked = c.trips.some((t) => t.begin <= now && !openingPhases.has(t.phase));
			if (going && openingPhases.has(trip.phase)) states[c.place] = "open";
			else if (going) states[c.place] = "ask";
			else states[c.place] = !holders.has(c) ? "idle" : asked ? "ask" : "open";
		} else if (!c.served && c.close <= now && now < c.close + flash && states[c.place] === "none") states[c.place] = "bad";
	}
	lane.boxes.forEach((box, i) => {
		const part = { open: 0.5, ask: 1, idle: 0.2 }[states[i]] || 0;
		box.frame.setAttribute("class", part ? "place there" : "place");
		box.fill.setAttribute("class", states[i]);
		box.fill.setAttribute("y", box.y + lane.size * (1 - part));
		box.fill.setAttribute("height", lane.size * part);
		box.cross.setAttribute("visibility", states[i] === "bad" ? "visible" : "hidden");
	});
	lane.failures.setAttribute("d", lane.pile.slice(0, failed).join(""));
	waiting.sort((a, b) => a.begin - b.begin);
	lane.dots.forEach((dot) => dot.setAttribute("visibility", "hidden"));
	const put = (caller, x, y) => {
		const dot = lane.dots[caller];
		dot.setAttribute("visibility", "visible");
		dot.setAttribute("transform", `translate(${x},${y})`);
	};
	waiting.forEach((call, i) => put(call.caller, lane.queue[i][0] + 10, lane.queue[i][1] + 10));
	for (const [c, caller] of holders) put(caller, lane.boxes[c.place].x + lane.size / 2, lane.boxes[c.place].y + lane.size / 2);
	const sample = lane.processes.findLast((s) => s.at <= now), pids = sample ? sample.pids || [] : [];
	seat(lane, pids);
	const down = recording.fault && lane.fault_at > 0 && now >= lane.fault_at ? ` At ${lane.fault_at.toFixed(0)} ms: ${recording.fault}.` : "";
	const errors = now >= lane.elapsed_ms && failed ? ` (${Object.entries(lane.errors).map(([name, n]) => `${n} ${name}`).join(", ")})` : "";
	const over = now >= lane.elapsed_ms ? ` Done in ${lane.elapsed_ms.toFixed(0)} ms.` : "";
	const wait = lane.pooled ? `${waiting.length} wait, ` : "";
	lane.figures.textContent = `${answered} of ${recording.calls} answered, ${failed} failed${errors}. ${wait}${open} connections, ` +
		`${pids.length} server processes.${over}${down}`;
	if (!playing) {
		lane.svg.setAttribute("aria-label", `${lane.name} at ${now.toFixed(0)} ms: ${lane.figures.textContent}`);
	}
}

// seat gives each process of the server a seat of its own for as long as it lives.
function seat(lane, pids) {
	if (!lane.seats || now < lane.seatsAt) lane.seats = new Array(lane.chairs.length).fill(0);
	lane.seatsAt = now;
	lane.seats = lane.seats.map((pid) => (pids.includes(pid) ? pid : 0));
	for (const pid of pids) {
		if (lane.seats.includes(pid)) continue;
		const free = lane.seats.indexOf(0);
		if (free >= 0) lane.seats[free] = pid;
	}
	lane.chairs.forEach((chair, i) => chair.setAttribute("class", lane.seats[i] ? "process" : "noprocess"));
}

// The player.

let last = 0;
function play(yes) {
	playing = yes && recording !== null;
	$("play").textContent = playing ? "Pause" : "Play";
	last = performance.now();
	if (playing) requestAnimationFrame(tick);
	else if (recording) draw();
}

function tick(at) {
	if (!playing) return;
	now = Math.min(end, now + Math.max(0, at - last) * Number($("speed").value));
	last = at;
	draw();
	if (now >= end) return play(false);
	requestAnimationFrame(tick);
}

// next returns when something happens next after now.
function next() {
	let soonest = end;
	const see = (t) => { if (t > now + 0.05 && t < soonest) soonest = t; };
	for (const lane of lanes) {
		for (const call of lane.calls) [call.begin, call.end].forEach(see);
		for (const c of lane.connections) {
			[c.open, c.close].forEach(see);
			for (const t of c.trips) [t.begin, t.end].forEach(see);
		}
		for (const s of lane.processes) see(s.at);
	}
	return soonest;
}

$("play").addEventListener("click", () => { if (!playing && now >= end) now = 0; play(!playing); });
$("step").addEventListener("click", () => { now = next(); play(false); });
$("replay").addEventListener("click", () => { now = 0; play(true); });
$("time").addEventListener("input", () => { now = Number($("time").value); play(false); });

let resized = 0;
addEventListener("resize", () => {
	clearTimeout(resized);
	resized = setTimeout(() => { if (recording) build(); }, 100);
});
listen();
