module lwprt

go 1.25.0

require (
	golang.org/x/arch v0.30.0
	golang.org/x/sync v0.20.0 // indirect
	golang.org/x/sys v0.46.0 // indirect
)
