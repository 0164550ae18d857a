package lwp

// SkippedBarriers returns how many write barriers the handler has returned
// past on the calling thread's stack since that was mapped.
func SkippedBarriers() int { return int(current().skipped) }

// StackBounds returns the bounds of the calling thread's stack.
func StackBounds() (lo, hi uintptr) {
	c := current()
	return c.G.StackLo, c.G.StackHi
}
