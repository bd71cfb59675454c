"use strict";
// The page only shows what the server says, five times a second and after every turn.
const $ = (id) => document.getElementById(id);
const secret = document.querySelector("meta[name=penny]").content;

async function send(path, body) {
	const answer = await fetch(path, { method: "POST", headers: { "X-Penny": secret }, body: body && JSON.stringify(body) });
	if (!answer.ok) $("state").textContent = await answer.text();
}

$("form").addEventListener("submit", (event) => {
	event.preventDefault();
	const only = [...document.querySelectorAll("input[name=only]:checked")].map((box) => box.value);
	const number = (id) => Number($(id).value);
	send("/start", { only, calls: number("calls"), workers: number("workers"), pool: number("pool"), rtt: number("rtt") });
});
$("pause").addEventListener("click", () => send($("pause").textContent === "Pause" ? "/pause" : "/resume"));
$("stop").addEventListener("click", () => send("/stop"));

function cell(row, text, name) {
	const td = row.insertCell();
	td.textContent = text;
	if (name) td.className = name;
	return td;
}

// The count of connections over time, as a line that steps: what the last 150 messages of the server said.
const counts = [];
function remember(count) {
	counts.push(count);
	if (counts.length > 150) counts.shift();
	const most = Math.max(8, ...counts);
	const points = counts.flatMap((n, i) => [[2 * i, 38 - 36 * n / most], [2 * i + 2, 38 - 36 * n / most]]);
	$("history").firstElementChild.setAttribute("points", points.map((p) => p.join()).join(" "));
}

function show(now) {
	const going = now.state === "running" || now.state === "paused";
	$("start").disabled = going;
	$("start").textContent = now.race && !going ? "Repeat" : "Start";
	$("pause").disabled = $("stop").disabled = !going;
	$("pause").textContent = now.state === "paused" ? "Go on" : "Pause";
	$("save").hidden = going || !now.race;
	$("connections").textContent = now.connections;
	if (going) remember(now.connections);
	const contenders = now.race ? now.race.contenders || [] : [];
	const done = contenders.reduce((sum, c) => sum + c.calls, 0);
	const all = now.race ? contenders.length * now.race.calls : 0;
	const words = { ready: "Ready.", running: "Running", paused: "Paused", done: "Done.", failed: "It failed." };
	$("state").textContent = words[now.state] + (going && all ? ` ${Math.round(100 * done / all)} %` : "") + (now.message ? " " + now.message : "");
	const fastest = Math.max(1, ...contenders.map((c) => c.calls_per_second));
	const rows = $("rows");
	rows.replaceChildren();
	for (const c of contenders) {
		const row = rows.insertRow();
		cell(row, c.name);
		const bar = document.createElement("div");
		bar.className = "bar" + (c.connections_opened >= c.calls && c.calls > 0 ? " per-call" : "");
		const length = document.createElement("i"), label = document.createElement("b");
		length.style.width = 80 * c.calls_per_second / fastest + "%";
		label.style.left = length.style.width;
		label.textContent = Math.round(c.calls_per_second).toLocaleString("en");
		bar.append(length, label);
		cell(row, "", "rate").append(bar);
		cell(row, c.calls.toLocaleString("en"));
		for (const ms of [c.p50_ms, c.p95_ms, c.p99_ms]) cell(row, ms.toFixed(ms < 100 ? 2 : 0) + " ms");
		cell(row, c.connections_opened);
		const errors = Object.entries(c.errors || {}).map(([name, count]) => count + " " + name);
		cell(row, errors.join(", ") || "0", errors.length ? "bad" : "");
	}
}

new EventSource("/events").onmessage = (event) => show(JSON.parse(event.data));
