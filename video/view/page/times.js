// Times as people read them.

export function clock(value) {
  const tenths = Math.round(value * 10);
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(tenths / 36000)}:${two(Math.floor(tenths / 600) % 60)}:${two(Math.floor(tenths / 10) % 60)}.${tenths % 10}`;
}

// epoch: seconds since 1970
export function ofDay(epoch) {
  const then = new Date(epoch * 1000);
  const time = then.toLocaleTimeString([], { hourCycle: "h23" });
  return then.toDateString() === new Date().toDateString() ? time : `${then.toLocaleDateString()} ${time}`;
}

export function seconds(value) {
  if (value < 120) return `${Math.round(value)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}
