# First of all, so that Ctrl-C while a command imports is a line.
import deeplax as deeplax
