package sched_test

import (
	"testing"

	"lwprt/sched"
)

// bouncers wake each other by Select alone, and are the newest of their
// worker's fibers all the time.
type bouncers struct {
	a, b   ints
	turn   bool // the third fiber has had its turn
	rounds int
}

func (x *bouncers) bounce(in, out *ints) {
	for x.rounds < 5_000_000 && !x.turn {
		x.rounds++
		var v int
		if _, err := sched.Select(out.SendCase(&v), in.RecvCase(&v)); err != nil {
			return
		}
	}
	out.Close()
}

// TestSelectKeepsNobodyFromItsTurn: two fibers that stop in Select and nowhere
// else are not always followed by each other.
func TestSelectKeepsNobodyFromItsTurn(t *testing.T) {
	s := begin(t, 1)
	x := new(bouncers)
	run(t, s, func(x *bouncers) {
		third, _ := sched.Go(func(x *bouncers) { x.turn = true }, x)
		one, _ := sched.Go(func(x *bouncers) { x.bounce(&x.a, &x.b) }, x)
		two, _ := sched.Go(func(x *bouncers) { x.bounce(&x.b, &x.a) }, x)
		two.Join()
		one.Join()
		third.Join()
	}, x)
	if x.rounds >= 5_000_000 {
		t.Error("one that is ready waits for ever")
	}
	t.Log(x.rounds, "rounds before its turn")
}
