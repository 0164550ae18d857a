//go:build race || msan || asan

package lwp_test

const raceEnabled = true
