# SPDX-License-Identifier: Apache-2.0
# What is installed besides programs, libraries and units: the configuration, man pages, completions.
install(FILES conf/kvmstatd.yaml
  DESTINATION ${CMAKE_INSTALL_SYSCONFDIR}/kvmstatd COMPONENT daemon)
foreach(section 1 3 5 8)
  file(GLOB pages CONFIGURE_DEPENDS docs/man/*.${section})
  if(pages)
    install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section} COMPONENT doc)
  endif()
endforeach()
file(GLOB completions CONFIGURE_DEPENDS completions/*.bash)
foreach(completion ${completions})
  get_filename_component(name ${completion} NAME_WE)
  install(FILES ${completion} DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
    RENAME ${name} COMPONENT tools)
endforeach()
