package lwp

// SkippedBarriers returns how many write barriers the handler has returned
// past on the calling thread's stack since that was mapped.
func SkippedBarriers() int { return int(current().skipped) }

// StackBounds returns the bounds of the calling thread's stack.
func StackBounds() (lo, hi uintptr) {
	c := current()
	return c.G.StackLo, c.G.StackHi
}

// OwnCode returns what threads run besides the functions that are exported:
// the beginning and end of a thread and of a pool's, and what faults lead to.
func OwnCode() map[string]any {
	return map[string]any{
		"threadMain": threadMain, "poolMain": poolMain,
		"onFault": onFault, "faulted": faulted, "faultedAgain": faultedAgain,
	}
}
