"use strict";
// Draws the tree in #data: [title, place, kind, bytes in use, bytes allocated, children], root on
// top. Names are set as text only. Click a box to zoom in, on one above to zoom out again.
(() => {
	const TITLE = 0, PLACE = 1, KIND = 2, CHILDREN = 5;
	const ROW_PX = 18, NARROWEST = 0.0008; // of the width: what no screen shows
	const byId = (id) => document.getElementById(id);
	const graph = byId("graph");
	const parents = new Map();
	const root = JSON.parse(byId("data").textContent);
	let focus = root, value = 3;

	function link() {
		for (const waiting = [root]; waiting.length;) {
			const node = waiting.pop();
			for (const child of node[CHILDREN]) parents.set(child, node);
			waiting.push(...node[CHILDREN]);
		}
	}

	function bytes(count) {
		const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
		let power = 0;
		for (; count >= 1024 && power < units.length - 1; power++) count /= 1024;
		return (power ? count.toFixed(2) : count) + " " + units[power];
	}

	function pattern() {
		return byId("search").value.toLowerCase();
	}

	function isFound(node) {
		const wanted = pattern();
		return wanted !== "" && (node[TITLE] + " " + node[PLACE]).toLowerCase().includes(wanted);
	}

	function tell(node) {
		const share = root[value] ? (100 * node[value] / root[value]).toFixed(1) : "0.0";
		byId("told").textContent = `${node[TITLE]}  ${node[PLACE]}  ${bytes(node[value])} (${share}%)`;
	}

	function box(node, left, width, row, isAbove) {
		const button = document.createElement("button");
		button.type = "button";
		button.className = node[KIND] + (isAbove ? " above" : "") + (isFound(node) ? " found" : "");
		button.style.left = 100 * left + "%";
		button.style.width = 100 * width + "%";
		button.style.top = row * ROW_PX + "px";
		button.textContent = width > 0.01 ? node[TITLE] : "";
		button.setAttribute("aria-label", `${node[TITLE]} ${bytes(node[value])}`);
		button.addEventListener("click", () => { focus = node; draw(); tell(node); });
		button.addEventListener("mouseenter", () => tell(node));
		button.addEventListener("focus", () => tell(node));
		graph.append(button);
	}

	function draw() {
		graph.replaceChildren();
		const above = [];
		for (let node = parents.get(focus); node; node = parents.get(node)) above.unshift(node);
		above.forEach((node, row) => box(node, 0, 1, row, true));
		const waiting = [[focus, 0, 1, above.length]];
		let rows = 0;
		while (waiting.length) {
			const [node, left, width, row] = waiting.pop();
			box(node, left, width, row, false);
			rows = Math.max(rows, row + 1);
			let at = left;
			for (const child of node[CHILDREN]) {
				const share = node[value] ? width * child[value] / node[value] : 0;
				if (share > NARROWEST) waiting.push([child, at, share, row + 1]);
				at += share;
			}
		}
		graph.style.height = rows * ROW_PX + "px";
		count();
	}

	// Bytes of the stacks that hold a match; nested matches count once.
	function count() {
		let found = 0;
		const waiting = [root];
		while (waiting.length) {
			const node = waiting.pop();
			if (isFound(node)) found += node[value];
			else waiting.push(...node[CHILDREN]);
		}
		byId("matched").textContent = pattern() === "" ? "" :
			`matched ${bytes(found)} (${root[value] ? (100 * found / root[value]).toFixed(1) : "0.0"}%)`;
	}

	link();
	byId("search").addEventListener("input", draw);
	byId("reset").addEventListener("click", () => { focus = root; draw(); tell(root); });
	byId("value").addEventListener("change", (event) => { value = Number(event.target.value); draw(); });
	draw();
	tell(root);
})();
