package tls_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

// trail is what destructors write down; the tests run one thread at a time.
type trail struct {
	text [32]byte
	n    int
}

func (r *trail) add(c byte) {
	if r.n < len(r.text) {
		r.text[r.n] = c
		r.n++
	}
}

func (r *trail) take() string {
	s := string(r.text[:r.n])
	r.n = 0
	return s
}

// trailKey is a key whose values its destructor writes down; it also checks that the key is
// unset by then, and runs more if there is more.
func trailKey(t *testing.T, r *trail, more func()) *tls.Key[byte] {
	t.Helper()
	k := new(tls.Key[byte])
	*k = newKey(t, func(v *byte) {
		if _, set := k.Get(); set {
			r.add('!')
		}
		r.add(*v)
		if more != nil {
			more()
		}
	})
	return k
}

func TestDestructorsRunInReverse(t *testing.T) {
	begin(t)
	r := new(trail)
	a, b, c, d := trailKey(t, r, nil), trailKey(t, r, nil), trailKey(t, r, nil), trailKey(t, r, nil)
	for range 3 {
		run(t, func(f *faults) {
			f.check(0, c.Set('c') == nil)
			f.check(1, a.Set('x') == nil)
			f.check(2, d.Set('d') == nil)
			f.check(3, a.Set('a') == nil) // keeps its place
		})
		if got := r.take(); got != "dac" {
			t.Errorf("destructors ran as %q, want %q", got, "dac")
		}
		run(t, func(f *faults) {}) // nothing set, nothing to run
		if got := r.take(); got != "" {
			t.Errorf("destructors ran as %q on a thread that set nothing", got)
		}
	}
	_ = b
}

func TestDestructorThatSetsItsKeyIsBounded(t *testing.T) {
	begin(t)
	r := new(trail)
	var k *tls.Key[byte]
	k = trailKey(t, r, func() { k.Set('k') })
	run(t, func(f *faults) { f.check(0, k.Set('k') == nil) })
	if got := r.take(); len(got) != tls.DestructorPasses {
		t.Errorf("destructors ran as %q, want %d times", got, tls.DestructorPasses)
	}
	run(t, func(f *faults) {
		_, set := k.Get()
		f.check(0, !set)
	})
}

// TestDestructorStarvesNoOther has a key that is set last be set again by its
// destructor each time. Those set before must have their turn in the first pass.
func TestDestructorStarvesNoOther(t *testing.T) {
	begin(t)
	r := new(trail)
	var b *tls.Key[byte]
	a, c := trailKey(t, r, nil), trailKey(t, r, nil)
	b = trailKey(t, r, func() { b.Set('b') })
	run(t, func(f *faults) {
		f.check(0, a.Set('a') == nil)
		f.check(1, c.Set('c') == nil)
		f.check(2, b.Set('b') == nil)
	})
	if got := r.take(); got != "bcabbb" {
		t.Errorf("destructors ran as %q, want %q", got, "bcabbb")
	}
}

// TestDestructorsSetOtherKeys has destructors set keys whose turn has been, whose
// turn is to come, and which were not set.
func TestDestructorsSetOtherKeys(t *testing.T) {
	begin(t)
	r := new(trail)
	var a, b, c, d *tls.Key[byte]
	first := true
	d = trailKey(t, r, nil)
	a = trailKey(t, r, nil)
	b = trailKey(t, r, func() {
		if first {
			first = false
			a.Set('A') // to come in this pass: a new value, no second turn
			d.Set('D') // was not set: next pass
			c.Set('C') // has been: next pass, and before d as it was set after it
		}
	})
	c = trailKey(t, r, nil)
	run(t, func(f *faults) {
		f.check(0, a.Set('a') == nil)
		f.check(1, b.Set('b') == nil)
		f.check(2, c.Set('c') == nil)
	})
	if got := r.take(); got != "cbACD" {
		t.Errorf("destructors ran as %q, want %q", got, "cbACD")
	}
}

// TestExitInDestructorIsBounded has a destructor set its key again and leave by
// Exit, which begins the end of the thread anew each time.
func TestExitInDestructorIsBounded(t *testing.T) {
	begin(t)
	r := new(trail)
	var b *tls.Key[byte]
	a := trailKey(t, r, nil)
	b = trailKey(t, r, func() {
		b.Set('b')
		lwp.Exit()
	})
	run(t, func(f *faults) {
		f.check(0, a.Set('a') == nil)
		f.check(1, b.Set('b') == nil)
	})
	if got := r.take(); got != "babbb" {
		t.Errorf("destructors ran as %q, want %q", got, "babbb")
	}
}

// TestDestructorIsItsOwnKeys makes and deletes keys of two types with one size while
// threads that hold values of them end. A destructor must not see the value of
// the other type, which has taken the key's place.
func TestDestructorIsItsOwnKeys(t *testing.T) {
	begin(t)
	type left struct{ tag, a uint64 }
	type right struct{ b, tag uint64 }
	const leftTag, rightTag = 0x1111, 0x2222
	var wrong, ended atomic.Int64
	var key struct {
		sync.Mutex
		l tls.Key[left]
		r tls.Key[right]
	}
	destroyLeft := func(v *left) {
		ended.Add(1)
		if v.tag != leftTag {
			wrong.Add(1)
		}
	}
	destroyRight := func(v *right) {
		ended.Add(1)
		if v.tag != rightTag {
			wrong.Add(1)
		}
	}
	type job struct {
		l tls.Key[left]
		r tls.Key[right]
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				key.Lock()
				j := &job{key.l, key.r}
				key.Unlock()
				th, err := lwp.Start(func(j *job) {
					j.l.Set(left{leftTag, 0})
					j.r.Set(right{0, rightTag})
				}, j)
				if err != nil {
					t.Error(err)
					return
				}
				want(t, "Join", th.Join(), nil)
			}
		})
	}
	end := time.Now().Add(time.Duration(lwptest.Count(1000, 200)) * time.Millisecond)
	for i := 0; time.Now().Before(end) || ended.Load() == 0; i++ {
		var err error
		key.Lock()
		if i%2 == 0 {
			key.r.Delete()
			key.l, err = tls.NewKey(destroyLeft)
		} else {
			key.l.Delete()
			key.r, err = tls.NewKey(destroyRight)
		}
		key.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		lwp.Yield()
	}
	close(stop)
	wg.Wait()
	key.l.Delete()
	key.r.Delete()
	if wrong.Load() != 0 || ended.Load() == 0 {
		t.Errorf("%d of %d destructors had a value of another key", wrong.Load(), ended.Load())
	}
}
