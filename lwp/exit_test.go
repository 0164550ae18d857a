package lwp_test

import (
	"sync/atomic"
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/tls"
)

// A diary is what a thread's end writes down, one character for each step.
// There is one at a time, so that hooks and destructors can find it.
var diary struct {
	text [64]byte
	n    int
	code atomic.Uint32 // of the first error that was not expected
}

func write(c byte) {
	if diary.n < len(diary.text) {
		diary.text[diary.n] = c
		diary.n++
	}
}

// must writes down an error that is not the one expected.
func must(err, want error) {
	if err != want {
		c := lwptest.CodeOf(err)
		if c == 0 {
			c = lwptest.Unknown
		}
		diary.code.CompareAndSwap(0, uint32(c))
	}
}

// letters are what hooks write: arguments that live as long as the program.
var letters = [26]byte{}

func init() {
	for i := range letters {
		letters[i] = byte('a' + i)
	}
}

func note(c *byte) { write(*c) }

func letter(c byte) *byte { return &letters[c-'a'] }

// everyEnd runs fn to its end on a thread, detached and not, on a pool, and a
// second time where the first left its memory, and checks the diary.
func everyEnd(t *testing.T, fn func(*int), text string) {
	t.Helper()
	begin(t)
	pool, err := lwp.NewPool(lwp.PoolConfig{})
	want(t, "NewPool", err, nil)
	defer func() { want(t, "Close", pool.Close(), nil) }()
	for _, c := range []struct {
		name string
		attr lwp.Attr
	}{
		{"thread", lwp.Attr{}}, {"second thread", lwp.Attr{}},
		{"detached", lwp.Attr{Detached: true}},
		{"run", lwp.Attr{Pool: pool}}, {"second run", lwp.Attr{Pool: pool}},
		{"detached run", lwp.Attr{Pool: pool, Detached: true}},
	} {
		diary.n = 0
		th := startAttr(t, fn, nil, c.attr)
		if c.attr.Detached {
			lwptest.Eventually(t, "a detached thread to end", func() bool {
				lwp.Trim()
				return th.TID() == 0
			})
		} else {
			join(t, th)
		}
		if got := string(diary.text[:diary.n]); got != text {
			t.Errorf("%s: diary %q, want %q", c.name, got, text)
		}
		if code := lwptest.Code(diary.code.Swap(0)); code != 0 {
			t.Errorf("%s: %v", c.name, code)
		}
	}
}

func TestExitLeavesNestedFrames(t *testing.T) {
	everyEnd(t, func(*int) {
		must(lwp.OnExit(note, letter('h')), nil)
		write('1')
		leave(20)
		write('!')
	}, "1xh")
}

//go:noinline
func leave(depth int) {
	if depth == 0 {
		write('x')
		lwp.Exit()
	}
	//lint:ignore SA5007 Exit does not return
	leave(depth - 1)
	write('!')
}

func TestExitOnGoroutinePanics(t *testing.T) {
	defer func() {
		if got := recover(); got != "lwp: Exit on a goroutine" {
			t.Errorf("panic %v", got)
		}
	}()
	lwp.Exit()
}

func TestHooksRunLastFirst(t *testing.T) {
	everyEnd(t, func(*int) {
		must(lwp.OnExit(note, letter('a')), nil)
		must(lwp.OnExit(note, letter('b')), nil)
		must(lwp.OnExit(note, letter('c')), nil)
		write('1')
	}, "1cba")
}

func TestHooksAreLimited(t *testing.T) {
	everyEnd(t, func(*int) {
		must(lwp.OnExit[byte](nil, nil), lwp.ErrNilFunc)
		for i := range 16 {
			must(lwp.OnExit(note, &letters[i]), nil)
		}
		must(lwp.OnExit(note, letter('z')), lwp.ErrHooks)
	}, "ponmlkjihgfedcba")
}

func TestOnExitIsForThreads(t *testing.T) {
	want(t, "OnExit on a goroutine", lwp.OnExit(note, letter('a')), lwp.ErrNotThread)
	want(t, "OnExit of nil", lwp.OnExit[byte](nil, nil), lwp.ErrNilFunc)
}

// again registers further hooks from a hook.
func again(c *byte) {
	write(*c)
	if *c < 'd' {
		must(lwp.OnExit(again, letter(*c+1)), nil)
	}
}

func TestHookRegistersHook(t *testing.T) {
	everyEnd(t, func(*int) {
		must(lwp.OnExit(note, letter('z')), nil)
		must(lwp.OnExit(again, letter('a')), nil)
	}, "abcdz")
}

func exitNote(c *byte) {
	write(*c)
	lwp.Exit()
	write('!')
}

// TestExitInHookGoesOn expects that a thread's end goes on with what is left,
// also when a step of it calls Exit.
func TestExitInHookGoesOn(t *testing.T) {
	everyEnd(t, func(*int) {
		must(lwp.OnExit(note, letter('a')), nil)
		must(lwp.OnExit(exitNote, letter('b')), nil)
		must(lwp.OnExit(exitNote, letter('c')), nil)
		lwp.Exit()
	}, "cba")
}

// keys made for a test, and deleted after it.
func newKey(t *testing.T, destructor func(*byte)) tls.Key[byte] {
	t.Helper()
	k, err := tls.NewKey(destructor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { want(t, "Delete", k.Delete(), nil) })
	return k
}

func TestExitInDestructorGoesOn(t *testing.T) {
	k, l, m := newKey(t, note), newKey(t, exitNote), newKey(t, note)
	everyEnd(t, func(*int) {
		must(lwp.OnExit(note, letter('h')), nil)
		must(k.Set('k'), nil)
		must(l.Set('l'), nil)
		must(m.Set('m'), nil)
	}, "mlkh")
}

func TestDestructorsRunLastSetFirstAndBeforeHooks(t *testing.T) {
	k, l, m := newKey(t, note), newKey(t, note), newKey(t, nil)
	everyEnd(t, func(*int) {
		must(l.Set('x'), nil)
		must(lwp.OnExit(note, letter('h')), nil)
		must(m.Set('m'), nil)
		must(k.Set('k'), nil)
		must(l.Set('l'), nil) // stands where it was set first
	}, "klh")
}

// TestHookCanUseStorageOfItsOwn has a hook set a key after destructors have
// run. Its value must not turn up on the thread that gets the memory next, nor
// may its destructor stay undone.
func TestHookCanUseStorageOfItsOwn(t *testing.T) {
	hookKey = newKey(t, note)
	everyEnd(t, func(*int) {
		if _, set := hookKey.Get(); set {
			write('!')
		}
		must(lwp.OnExit(func(c *byte) {
			if _, set := hookKey.Get(); set {
				write('?')
			}
			must(hookKey.Set('k'), nil)
			write(*c)
		}, letter('h')), nil)
	}, "hk")
}

var hookKey tls.Key[byte]

var startKey tls.Key[byte]

// TestStartInDyingThreadIsRefused tries it in a destructor, in a hook, and in
// what Exit runs.
func TestStartInDyingThreadIsRefused(t *testing.T) {
	refused := func(c *byte) {
		_, err := lwp.Start(note, c)
		must(err, lwp.ErrExiting)
		_, err = lwp.StartAttr(note, c, lwp.Attr{Detached: true})
		must(err, lwp.ErrExiting)
		write(*c)
	}
	startKey = newKey(t, refused)
	hookRefused = refused
	for _, exit := range []bool{false, true} {
		everyExit = exit
		t.Run(map[bool]string{true: "Exit", false: "return"}[exit], func(t *testing.T) {
			everyEnd(t, func(*int) {
				// Not dying yet: Start works.
				th, err := lwp.Start(note, letter('s'))
				must(err, nil)
				must(th.Join(), nil)
				must(lwp.OnExit(hookRefused, letter('h')), nil)
				must(startKey.Set('k'), nil)
				if everyExit {
					lwp.Exit()
				}
			}, "skh")
		})
	}
}

var (
	hookRefused func(*byte)
	everyExit   bool
)
