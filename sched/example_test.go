//go:build !race

package sched_test

import (
	"fmt"

	"lwprt/sched"
)

type span struct{ from, to, sum int }

// add runs on a fiber. Its children work on its own stack frame, which stays
// in place, and is there until it has joined them.
func add(s *span) {
	if s.to-s.from <= 10 {
		for n := s.from; n < s.to; n++ {
			s.sum += n
		}
		return
	}
	middle := (s.from + s.to) / 2
	low, high := span{from: s.from, to: middle}, span{from: middle, to: s.to}
	f, err := sched.Go(add, &low)
	if err != nil {
		return
	}
	add(&high)
	if f.Join() == nil {
		s.sum = low.sum + high.sum
	}
}

func Example() {
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	all := &span{from: 1, to: 1001}
	f, err := sched.Spawn(s, add, all)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Join(), all.sum)
	// Output: <nil> 500500
}

func ExampleFiber_Unpark() {
	s, err := sched.New(sched.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	s.Hold() // this goroutine is going to wake somebody
	n := new(int)
	f, err := sched.Spawn(s, func(n *int) {
		sched.Park("the number")
		*n *= 2
	}, n)
	if err != nil {
		fmt.Println(err)
		return
	}
	*n = 21
	f.Unpark()
	s.Release()
	fmt.Println(f.Join(), *n)
	// Output: <nil> 42
}

// A relay receives numbers until the end and sends their squares on.
type relay struct{ in, out *sched.Chan[int] }

func (r *relay) square() {
	for {
		n, ok := r.in.Recv()
		if !ok {
			break
		}
		r.out.Send(n * n)
	}
	r.out.Close()
}

func ExampleChan() {
	s, err := sched.New(sched.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	s.Hold() // the numbers come from this goroutine
	r := &relay{in: sched.MakeChan[int](1), out: sched.MakeChan[int](4)}
	f, err := sched.Spawn(s, (*relay).square, r)
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range 4 {
		r.in.Send(n + 1)
	}
	r.in.Close()
	for n, ok := r.out.Recv(); ok; n, ok = r.out.Recv() {
		fmt.Println(n)
	}
	s.Release()
	fmt.Println(f.Join(), r.in.Send(5))
	// Output:
	// 1
	// 4
	// 9
	// 16
	// <nil> sched: the channel is closed
}

// A clerk adds up what comes, until it is told to stop.
type clerk struct {
	work sched.Chan[int]
	stop sched.Chan[struct{}]
	sum  int
}

func (c *clerk) run() {
	var n int
	var end struct{}
	for {
		switch i, _ := sched.Select(c.work.RecvCase(&n), c.stop.RecvCase(&end)); i {
		case 0:
			c.sum += n
		case 1:
			return
		}
	}
}

func ExampleSelect() {
	s, err := sched.New(sched.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	s.Hold()
	c := new(clerk)
	f, err := sched.Spawn(s, (*clerk).run, c)
	if err != nil {
		fmt.Println(err)
		return
	}
	for n := range 10 {
		c.work.Send(n) // returns once the clerk has it: there is no buffer
	}
	c.stop.Close()
	s.Release()
	fmt.Println(f.Join(), c.sum)
	// Output: <nil> 45
}
