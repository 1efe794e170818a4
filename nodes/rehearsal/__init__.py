"""A stand-in for RunComfy's Model API over real HTTP on loopback, and the animatic it renders.

It knows the published API and nothing of this pack: a client that works here was not helped.
"""
