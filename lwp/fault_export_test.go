package lwp

// SkippedBarriers returns how many write barriers the handler has returned
// past on the calling thread's stack since that was mapped.
func SkippedBarriers() int { return int(current().skipped) }
