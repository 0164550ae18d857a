package sched

import (
	"unsafe"

	"lwprt/asm"
)

// The short ways in assembly do the same as some functions here, where that is
// little; so assembly knows the places of what it needs, and some values.
var (
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.current)-unsafe.Offsetof(asm.Runner{}.Current)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.inside)-unsafe.Offsetof(asm.Runner{}.Inside)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.tick)-unsafe.Offsetof(asm.Runner{}.Tick)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.top)-unsafe.Offsetof(asm.Runner{}.Top)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.loop)-unsafe.Offsetof(asm.Runner{}.Loop)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.loopLink)-unsafe.Offsetof(asm.Runner{}.Link)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.length)-unsafe.Offsetof(asm.Runner{}.Length)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.base)-unsafe.Offsetof(asm.Runner{}.Base)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.links)-unsafe.Offsetof(asm.Runner{}.Links)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.turning)-unsafe.Offsetof(asm.Runner{}.Turning)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.batch)-unsafe.Offsetof(asm.Runner{}.Batch)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.free)+unsafe.Offsetof(cache{}.list)-unsafe.Offsetof(asm.Runner{}.Free)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.free)+unsafe.Offsetof(cache{}.n)-unsafe.Offsetof(asm.Runner{}.Frees)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.shared)-unsafe.Offsetof(asm.Runner{}.Shared)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.stats)+unsafe.Offsetof(counters{}.spawns)-unsafe.Offsetof(asm.Runner{}.Spawns)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.stats)+unsafe.Offsetof(counters{}.ends)-unsafe.Offsetof(asm.Runner{}.Ends)]
	_ = [1]struct{}{}[unsafe.Offsetof(worker{}.claimed)-unsafe.Offsetof(asm.Runner{}.Claimed)]
	_ = [1]struct{}{}[unsafe.Offsetof(asm.Shared{}.Hungry)]
	_ = [1]struct{}{}[unsafe.Offsetof(core{}.closing)-unsafe.Offsetof(core{}.hungry)-unsafe.Offsetof(asm.Shared{}.Closing)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.Context)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.serial)-unsafe.Offsetof(asm.Runnable{}.Serial)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.word)-unsafe.Offsetof(asm.Runnable{}.Word)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.next)-unsafe.Offsetof(asm.Runnable{}.Next)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.prev)-unsafe.Offsetof(asm.Runnable{}.Prev)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.worker)-unsafe.Offsetof(asm.Runnable{}.Worker)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.state)-unsafe.Offsetof(asm.Runnable{}.State)]
	_ = [1]struct{}{}[unsafe.Offsetof(fiber{}.flags)-unsafe.Offsetof(asm.Runnable{}.Flags)]

	_ = [1]struct{}{}[unsafe.Sizeof(worker{})%64]

	_ = [1]struct{}{}[linkShift-asm.LinkShift]
	_ = [1]struct{}{}[firstLink-asm.FirstLink]
	_ = [1]struct{}{}[wordShift-asm.WordShift]
	_ = [1]struct{}{}[ownRoom-asm.StackTop]
	_ = [1]struct{}{}[gone]
	_ = [1]struct{}{}[runnable-asm.Ready]
	_ = [1]struct{}{}[joining-asm.Joining]
	_ = [1]struct{}{}[pinned-asm.Pinned]
	_ = [1]struct{}{}[hasFault-asm.Inherits]
)

var (
	goShort   = asm.Spawn[Fiber]()
	joinShort = asm.Join[Fiber]()
)

var (
	yieldFn   = yield
	spawnFn   = spawn
	spawnedFn = spawned
	joinFn    = join
	joinedFn  = joined
	endedFn   = ended
)

func init() {
	asm.SetPaths(asm.Paths{Yield: &yieldFn, Spawn: &spawnFn, Spawned: &spawnedFn, Join: &joinFn, Joined: &joinedFn, End: &endedFn})
}
