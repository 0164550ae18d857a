//go:build !(linux && (amd64 || arm64))

package asm

// A port is missing: see the files of amd64 for what one consists of.
var _ = lwprt_runs_on_linux_amd64_and_linux_arm64_only
