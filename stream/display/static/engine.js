// What runs the network and on which GPU, in words: for the head line and for the details.

const known = (value) => typeof value === "number";
const before = (sentence) => `${sentence}`.split("; ")[0];

/** The engine, or why there is none yet. */
export function engineWords(said) {
  if (said?.engine_why) return `none: ${before(said.engine_why)}`;
  return said?.engine ?? "--";
}

/** The GPU in a few words; null where the engine runs on the CPU. */
export function gpuWords(said) {
  const gpu = said?.gpu;
  if (!gpu) return said?.on_gpu ? "not known" : null;
  // What slows it first: a narrow page cuts off the rest.
  const words = slowed(gpu).length > 0 ? [`slowed: ${slowed(gpu).join(", ")}`] : [];
  if (known(gpu.busy_percent)) words.push(`${gpu.busy_percent} %`);
  if (known(gpu.temperature_c)) words.push(`${gpu.temperature_c} °C`);
  if (known(gpu.memory_used_mib)) words.push(memory(gpu));
  return words.join(" · ") || "--";
}

const gib = (mib) => (mib / 1024).toFixed(1);
const memory = (gpu) =>
  known(gpu.memory_total_mib)
    ? `${gib(gpu.memory_used_mib)} of ${Math.round(gpu.memory_total_mib / 1024)} GiB`
    : `${gib(gpu.memory_used_mib)} GiB`;
/** Why its clocks are below what they could be; an idle GPU is not slow. */
const slowed = (gpu) => (gpu.throttle ?? []).filter((word) => word !== "idle");

/** [name, value] pairs for the details. */
export function engineLines(said) {
  const lines = [["Engine", engineWords(said)]];
  if (said?.model) lines.push(["Model", said.model]);
  for (const [names, why] of said?.passed_over ?? []) lines.push(["Passed over", `${names}: ${why}`]);
  const gpu = said?.gpu;
  if (!gpu) return [...lines, ["GPU", said?.gpu_why ?? "--"]];
  const figure = (name, unit) => (known(gpu[name]) ? `${Math.round(gpu[name])} ${unit}` : "--");
  return [
    ...lines,
    ["GPU", `${gpu.name ?? "--"}, driver ${gpu.driver ?? "--"}`],
    ["GPU busy", `${figure("busy_percent", "%")}, memory ${known(gpu.memory_used_mib) ? memory(gpu) : "--"}`],
    ["GPU heat", `${figure("temperature_c", "°C")}, ${figure("power_w", "W")} of ${figure("power_limit_w", "W")}`],
    ["GPU clock", `${figure("sm_mhz", "MHz")} of ${figure("sm_max_mhz", "MHz")}`],
    ["GPU slowed by", gpu.throttle ? slowed(gpu).join(", ") || "nothing" : "--"],
  ];
}
