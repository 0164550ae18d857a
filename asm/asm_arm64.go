package asm

// prologue is how compiled code begins that checks its stack:
// MOVD 16(g), R16, the load of g.stackguard0.
var prologue = []byte{0x90, 0x0b, 0x40, 0xf9}

// slotNeeded says that compiled code finds g in the TLS slot.
const slotNeeded = false

// startArg is where, above a new context's SP, the argument of its function is.
const startArg = 8

const vdsoClockName = "__kernel_clock_gettime"
